package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/serve"
)

// clientFlags say who may ask, and how much.
type clientFlags struct {
	keyFile         string
	rate            float64
	burst, requests int
}

func (c *clientFlags) add(f *pflag.FlagSet) {
	f.StringVar(&c.keyFile, "api_key_file", "",
		"`file` of the API keys, of which clients need one: lines as \"tfbert serve hash-key\" writes them")
	f.Float64Var(&c.rate, "client_rate", 0, "requests per second of a client, by its API key or its address (0: no limit)")
	f.IntVar(&c.burst, "client_burst", 0, "requests of a client at once after a pause (0: those of a second)")
	f.IntVar(&c.requests, "client_requests", 0, "requests of a client under way, at most (0: no limit)")
}

func (c *clientFlags) check() error {
	switch {
	case c.rate < 0 || c.rate > 1e9 || c.rate != c.rate || c.burst < 0 || c.requests < 0:
		return usagef("--client_rate, --client_burst and --client_requests must not be negative")
	case c.burst > 0 && c.rate == 0:
		return usagef("--client_burst needs --client_rate")
	}
	return nil
}

// set sets the options that the flags stand for.
func (c *clientFlags) set(o *serve.Options) (err error) {
	o.ClientRate, o.ClientBurst, o.ClientRequests = c.rate, c.burst, c.requests
	o.APIKeys, err = c.keys()
	return err
}

// keys reads the file of API keys.
func (c *clientFlags) keys() ([]serve.APIKey, error) {
	if c.keyFile == "" {
		return nil, nil
	}
	f, err := os.Open(c.keyFile)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	keys, err := serve.ReadAPIKeys(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.keyFile, err)
	}
	return keys, nil
}

// shortestKey is the length from which a key is taken for one that nobody can guess from its hash.
const shortestKey = 20

func newHashKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "hash-key NAME",
		Short: "Print the line of --api_key_file for a client's key",
		Long: `Hash-key reads an API key from standard input and prints the line for the file of
--api_key_file: the key's SHA-256 and the client's name. The server never needs
the key itself.

A client may have several keys, so that you can add a new one before you remove
the old one.`,
		Example: `  openssl rand -hex 32 | tee alice.key | tfbert serve hash-key alice >> api_keys
  tfbert serve --api_key_file api_keys
  curl -H "Authorization: Bearer $(cat alice.key)" localhost:8501/v1/models`,
		Args: args("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := io.ReadAll(io.LimitReader(stdin(cmd), 1<<12))
			if err != nil {
				return err
			}
			key := strings.TrimSpace(string(text))
			if len(key) < shortestKey || len(strings.Fields(key)) != 1 {
				return fmt.Errorf("an API key is one word of at least %d characters, such as that of \"openssl rand -hex 32\"",
					shortestKey)
			}
			line := fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(key)), args[0])
			if _, err := serve.ReadAPIKeys(strings.NewReader(line)); err != nil {
				return err
			}
			_, err = io.WriteString(cmd.OutOrStdout(), line)
			return err
		},
	}
	cmd.SetUsageTemplate(usageTemplate) // not that of serve, with its flags
	return cmd
}
