package install_test

import (
	"context"
	"fmt"
	"log"

	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tf/install"
)

// A service installs the library when it is first started, and finds it there from then on.
func ExampleLibrary() {
	path, err := install.Library(context.Background(), install.Options{
		Progress: func(p install.Progress) { log.Printf("%s %s: %d of %d bytes", p.Stage, p.Wheel, p.Done, p.Total) },
	})
	if err != nil {
		log.Fatal(err)
	}
	if err := tf.Load(path); err != nil {
		log.Fatal(err)
	}
	fmt.Println("TensorFlow", tf.Version())
}
