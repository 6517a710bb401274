package serve

import (
	"context"
	"net/netip"

	"github.com/tfbert/go/serve/batch"
)

// withClient returns a context of the client at a remote address. Clients take turns at the model. A client is a host,
// or a network of hosts in IPv6, of whose addresses anybody has 2^64.
func withClient(ctx context.Context, remote string) context.Context {
	if a, err := netip.ParseAddrPort(remote); err == nil {
		host := a.Addr().Unmap().WithZone("")
		if remote = host.String(); host.Is6() {
			remote = netip.PrefixFrom(host, 64).Masked().String()
		}
	}
	return batch.WithClient(ctx, remote)
}
