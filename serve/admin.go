package serve

import (
	"context"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/tfbert/go/serve/internal/transport"
)

// ServeAdmin serves profiles, /debug/pprof, on a port of its own until ctx ends.
func (s *Server) ServeAdmin(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	for path, h := range map[string]http.HandlerFunc{
		"": pprof.Index, "cmdline": pprof.Cmdline, "profile": pprof.Profile, "symbol": pprof.Symbol, "trace": pprof.Trace,
	} {
		mux.HandleFunc("GET /debug/pprof/"+path, func(w http.ResponseWriter, r *http.Request) {
			if err := s.host.Admin(r.Header.Get("Authorization")); err != nil {
				transport.WriteError(w, err)
				return
			}
			h(w, r)
		})
	}
	web := &http.Server{
		Handler: s.sites.protect(mux, s.deny), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idleTimeout,
		BaseContext: func(l net.Listener) context.Context { return withListener(context.Background(), l) },
	}
	stop := context.AfterFunc(ctx, func() { _ = web.Close() })
	defer stop()
	if err := web.Serve(l); ctx.Err() == nil {
		return err
	}
	return nil
}
