// Command embed is a program such as a user of package tf writes: with flags and signals of its own. It
// runs y = -x until it is told to end, and says on its standard output what came of it.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"github.com/tfbert/go/tf"
)

func init() { runtime.LockOSThread() } // main runs on the process's main thread

func main() {
	callers := flag.Int("callers", 4, "")
	capture := flag.Bool("capture", false, "")
	flag.VisitAll(func(f *flag.Flag) {
		if f.Name != "callers" && f.Name != "capture" {
			log.Fatalf("a package has added the flag -%s", f.Name)
		}
	})
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGHUP)

	goroutines, environment := runtime.NumGoroutine(), len(os.Environ())
	if *capture {
		if _, err := tf.CaptureLogs(slog.New(slog.NewJSONHandler(os.Stderr, nil))); err != nil {
			log.Fatal(err)
		}
	}
	if err := tf.Load(""); err != nil {
		log.Fatal(err)
	}
	if n := runtime.NumGoroutine(); n != goroutines {
		log.Fatalf("%d goroutines after Load, %d before", n, goroutines)
	}
	if n := len(os.Environ()); n != environment {
		log.Fatalf("%d variables in the environment after Load, %d before", n, environment)
	}
	g, err := tf.NewGraph()
	if err != nil {
		log.Fatal(err)
	}
	b := tf.Builder{Graph: g}
	x := b.Add(tf.OpSpec{Type: "Placeholder", Name: "x", Attrs: map[string]tf.Attr{"dtype": tf.Float}})
	y := b.Add(tf.OpSpec{Type: "Neg", Inputs: []tf.Input{x}})
	if b.Err != nil {
		log.Fatal(b.Err)
	}
	s, err := tf.NewSession(g, nil)
	if err != nil {
		log.Fatal(err)
	}
	in, err := tf.NewTensor(tf.Shape{2}, []float32{1, 2})
	if err != nil {
		log.Fatal(err)
	}
	var wg sync.WaitGroup
	ready := sync.OnceFunc(func() { fmt.Fprintln(os.Stderr, "ready") })
	for range *callers {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				out, _, err := s.Run(ctx, []tf.Feed{{Output: x, Tensor: in}}, []tf.Output{y}, nil)
				if err != nil {
					if ctx.Err() == nil {
						log.Fatal(err)
					}
					return
				}
				if err := out[0].Close(); err != nil {
					log.Fatal(err)
				}
				if n == 2 {
					ready()
				}
			}
		})
	}
	for ctx.Err() == nil { // signals come to the main thread: it is to be in Go, on a goroutine's stack
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		log.Fatal(err)
	}
	if err := in.Close(); err != nil {
		log.Fatal(err)
	}
	if err := g.Close(); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("drained, %+v alive\n", tf.Alive())
}
