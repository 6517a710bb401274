package tfmodel_test

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"

	"github.com/tfbert/go/serve"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/serve/tfmodel"
)

// Serve a model in every protocol, until the program is interrupted.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	models, err := repository.OpenModel("bert", 1, "model.savedmodel", repository.Options{Load: tfmodel.Loader(nil)})
	check(err)
	server, err := serve.New(models, serve.Options{})
	check(err)
	web, err := net.Listen("tcp", "127.0.0.1:8501")
	check(err)
	rpc, err := net.Listen("tcp", "127.0.0.1:8500")
	check(err)
	check(models.Start(ctx))
	check(server.Serve(ctx, web, rpc))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
