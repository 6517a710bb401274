package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tfbert/go/serve"
)

// Variables by which Vertex AI says how it asks a container.
const (
	vertexPort    = "AIP_HTTP_PORT"
	vertexHealth  = "AIP_HEALTH_ROUTE"
	vertexPredict = "AIP_PREDICT_ROUTE"
)

// fromVertex sets the port that Vertex AI asks, on all addresses, where no flag names another one.
func (n *networkFlags) fromVertex(flags *pflag.FlagSet) error {
	value := os.Getenv(vertexPort)
	if value == "" {
		return nil
	}
	port, err := strconv.ParseUint(value, 10, 16)
	if err != nil || port == 0 {
		return usagef("%s is %q: it must be a port", vertexPort, value)
	}
	if !flags.Changed("http_port") {
		n.httpPort = int(port)
	}
	if !flags.Changed("host") {
		n.host = "0.0.0.0"
	}
	return nil
}

// vertexRoutes sets the paths that Vertex AI asks.
func vertexRoutes(o *serve.Options) error {
	for name, route := range map[string]*string{vertexHealth: &o.HealthRoute, vertexPredict: &o.PredictRoute} {
		if *route = os.Getenv(name); *route != "" && !strings.HasPrefix(*route, "/") {
			return fmt.Errorf("%s is %q: it must be a path that begins with /", name, *route)
		}
	}
	return nil
}
