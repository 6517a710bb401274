package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealth() *cobra.Command {
	var address string
	var live bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health [--url U]",
		Short: "Ask a server whether it is ready",
		Long: `Health asks a server whether its models are loaded, and exits with status 1 if it
does not say so. It is for the health checks of containers and init systems,
where no other client may be at hand.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			u, err := url.Parse(address)
			if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
				return usagef("--url is http:// or https:// with host and port, not %q", address)
			}
			if timeout <= 0 {
				return usagef("--timeout must be positive")
			}
			question := "ready"
			if live {
				question = "live"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return checkHealth(ctx, strings.TrimSuffix(address, "/")+"/v2/health/"+question)
		},
	}
	f := cmd.Flags()
	f.StringVar(&address, "url", "http://127.0.0.1:8501", "`address` of the server")
	f.BoolVar(&live, "live", false, "ask only whether it lives, also while it loads its models")
	f.DurationVar(&timeout, "timeout", 5*time.Second, "`time` to wait for the answer")
	return cmd
}

func checkHealth(ctx context.Context, address string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	r, err := http.DefaultClient.Do(request)
	if err != nil {
		if own, ok := errors.AsType[*url.Error](err); ok {
			err = own.Err
		}
		return fmt.Errorf("%s: %w", address, err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: the server answers %s", address, r.Status)
	}
	return nil
}
