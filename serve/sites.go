package serve

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/rs/cors"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// sites decides which pages may use a browser's way to the server.
//
// A page can only read what comes from its own site, but can make its site's name lead to this machine (DNS
// rebinding). Its requests then have that name as their host. Where only this machine can connect, all other
// requests name it by an address, or by a name that is not one of the public DNS.
type sites struct {
	hosts   []string // that are allowed as well, in lower case; "*" and "*.example.com" too
	own     string   // this machine's name
	origins []string // of other pages that may send requests, and may read the answers; "*" for all
	guard   *http.CrossOriginProtection
}

func newSites(hosts, origins []string) (*sites, error) {
	own, _ := os.Hostname() // without it, it is one name less
	s := &sites{own: strings.ToLower(own), origins: origins, guard: http.NewCrossOriginProtection()}
	for _, host := range hosts {
		s.hosts = append(s.hosts, strings.ToLower(host))
	}
	for _, origin := range origins {
		if origin == "*" {
			continue
		}
		if err := s.guard.AddTrustedOrigin(origin); err != nil {
			return nil, fmt.Errorf("%q is not a valid origin such as https://example.com", origin)
		}
	}
	return s, nil
}

// loopbackKey is the key of true in the context of a request, if only this machine can connect.
type loopbackKey struct{}

// withListener returns a context for the requests of a listener.
func withListener(ctx context.Context, l net.Listener) context.Context {
	address, err := netip.ParseAddrPort(l.Addr().String())
	return context.WithValue(ctx, loopbackKey{}, err == nil && address.Addr().IsLoopback())
}

// checkHost returns an error if a request's host may be another site's name.
func (s *sites) checkHost(r *http.Request) error {
	loopback, _ := r.Context().Value(loopbackKey{}).(bool)
	if !loopback && len(s.hosts) == 0 || s.allows(r.Host) {
		return nil
	}
	return repository.Errorf(codes.PermissionDenied,
		"the server does not answer requests to this host: its operator can allow more hosts")
}

// allows reports whether a host, with or without a port, is one of this machine or its network, or is allowed.
func (s *sites) allows(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		if ip.IsLoopback() || ip.IsPrivate() || ip.IsUnspecified() || ip.IsLinkLocalUnicast() {
			return true
		}
	}
	if host == "" || host == "localhost" || host == s.own { // browsers always send one
		return true
	}
	return slices.ContainsFunc([]string{".localhost", ".local", ".internal"}, func(end string) bool {
		return strings.HasSuffix(host, end)
	}) || slices.ContainsFunc(s.hosts, func(allowed string) bool {
		end, wild := strings.CutPrefix(allowed, "*")
		return host == allowed || wild && strings.HasSuffix(host, end)
	})
}

// protect returns a handler that refuses requests to other hosts and those of other sites' pages, by deny.
func (s *sites) protect(h http.Handler, deny func(error) http.Handler) http.Handler {
	if !slices.Contains(s.origins, "*") {
		s.guard.SetDenyHandler(deny(repository.Errorf(codes.PermissionDenied,
			"a page of another site must not send requests here")))
		h = s.guard.Handler(h)
	}
	if len(s.origins) > 0 {
		h = cors.New(cors.Options{
			AllowedOrigins: s.origins, AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost},
			AllowedHeaders: []string{"*"}, ExposedHeaders: exposed, AllowPrivateNetwork: true, MaxAge: 600,
		}).Handler(h)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := s.checkHost(r); err != nil {
			deny(err).ServeHTTP(w, r)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// exposed are the headers that pages of other sites may read.
var exposed = []string{"Inference-Header-Content-Length", "Retry-After", "Server-Timing", transport.RequestID}

// refusedVerb stands for the verb of a request to another host or from another site's page.
const refusedVerb = "cross-origin"

// deny returns a handler of requests that are refused with an error.
func (s *Server) deny(err error) http.Handler {
	return s.serve(refusedVerb, func(http.ResponseWriter, *http.Request) error { return err })
}
