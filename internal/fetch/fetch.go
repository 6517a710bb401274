// Package fetch downloads files over HTTP: bounded, with the user's proxies, and resumed when a connection breaks. What
// comes is data of a stranger's until its caller has compared a digest.
package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// A Client downloads. The zero value has the proxies of the environment, and tries again a few times.
type Client struct {
	HTTP    *http.Client  // nil: one with the proxies of HTTP_PROXY, HTTPS_PROXY and NO_PROXY
	Retries int           // after a broken connection or a busy server; 0: four; -1: none
	Pause   time.Duration // before the first of them, and doubled from one to the next; 0: a quarter of a second
	Stall   time.Duration // the longest time without a byte; 0: a minute
}

// Page is a short answer.
type Page struct {
	URL  *url.URL // where redirections have led
	Type string   // the Content-Type
	Body []byte
}

// A StatusError reports an answer that is not the content that was asked for.
type StatusError struct {
	URL  string // without a password
	Code int
}

// Error implements error.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: the server answers %d %s", e.URL, e.Code, http.StatusText(e.Code))
}

// A SizeError reports an answer with more bytes than it can have.
type SizeError struct {
	URL  string // without a password
	Most int64
}

// Error implements error.
func (e *SizeError) Error() string {
	return fmt.Sprintf("%s: the answer has more than the %d bytes that it can have", e.URL, e.Most)
}

// Page gets a page of at most most bytes. The header is sent with the request; nil stands for none.
func (c *Client) Page(ctx context.Context, address string, header http.Header, most int64) (page *Page, err error) {
	err = c.retry(ctx, func() error {
		r, stop, err := c.get(ctx, address, header)
		if err != nil {
			return err
		}
		defer stop()
		if r.StatusCode != http.StatusOK {
			return &StatusError{redacted(r.Request.URL), r.StatusCode}
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, most+1))
		switch {
		case err != nil:
			return &brokenError{fmt.Errorf("%s: %w", redacted(r.Request.URL), err)}
		case int64(len(body)) > most:
			return &SizeError{redacted(r.Request.URL), most}
		}
		page = &Page{r.Request.URL, r.Header.Get("Content-Type"), body}
		return nil
	})
	return page, err
}

// File downloads a file of at most most bytes and writes it to f, from its beginning. Where a connection breaks it asks
// for the rest, if the server can send it alone. It calls progress, unless that is nil, with the bytes that are there
// and those that will be, 0 if the server does not say.
func (c *Client) File(
	ctx context.Context, address string, f *os.File, most int64, progress func(done, total int64),
) error {
	d := download{f: f, most: most, progress: progress}
	return c.retry(ctx, func() error {
		header := http.Header{"Accept-Encoding": {"identity"}} // ranges are of the file, not of a packed form
		if d.done > 0 {
			header.Set("Range", fmt.Sprintf("bytes=%d-", d.done))
			if d.tag != "" {
				header.Set("If-Range", d.tag) // all of it if it is another file by now
			}
		}
		r, stop, err := c.get(ctx, address, header)
		if err != nil {
			return err
		}
		defer stop()
		return d.read(r)
	})
}

// download is a file of which a part is there.
type download struct {
	f        *os.File
	done     int64
	most     int64
	tag      string // what tells this version of the file from others
	progress func(done, total int64)
}

// read appends what an answer holds, or begins again if that is all of the file.
func (d *download) read(r *http.Response) error {
	where := redacted(r.Request.URL)
	switch {
	case r.StatusCode == http.StatusRequestedRangeNotSatisfiable && d.done > 0:
		d.done = 0 // it has become shorter: from the beginning
		return &brokenError{&StatusError{where, r.StatusCode}}
	case r.StatusCode == http.StatusPartialContent && d.done > 0 && startsAt(r.Header.Get("Content-Range"), d.done):
	case r.StatusCode == http.StatusOK:
		d.done = 0
	default:
		return &StatusError{where, r.StatusCode}
	}
	if err := d.f.Truncate(d.done); err != nil {
		return err
	}
	d.tag = ""
	if tag := r.Header.Get("ETag"); !strings.HasPrefix(tag, "W/") {
		d.tag = tag
	}
	total := int64(0)
	if r.ContentLength >= 0 {
		total = d.done + r.ContentLength
	}
	if total > d.most {
		return &SizeError{where, d.most}
	}
	buffer := make([]byte, 1<<18)
	for {
		n, err := r.Body.Read(buffer)
		if d.done+int64(n) > d.most {
			return &SizeError{where, d.most}
		}
		if _, err := d.f.WriteAt(buffer[:n], d.done); err != nil {
			return err
		}
		d.done += int64(n)
		if d.progress != nil && n > 0 {
			d.progress(d.done, total)
		}
		switch {
		case err == io.EOF && total > d.done:
			return &brokenError{fmt.Errorf("%s: %w", where, io.ErrUnexpectedEOF)}
		case err == io.EOF:
			return nil
		case err != nil:
			return &brokenError{fmt.Errorf("%s: %w", where, err)}
		}
	}
}

// startsAt reports whether a Content-Range, as in "bytes 100-199/200", begins at an offset.
func startsAt(contentRange string, offset int64) bool {
	text, ok := strings.CutPrefix(contentRange, "bytes ")
	first, _, found := strings.Cut(text, "-")
	n, err := strconv.ParseInt(first, 10, 64)
	return ok && found && err == nil && n == offset
}

// A brokenError is one after which another attempt may succeed.
type brokenError struct{ error }

func (e *brokenError) Unwrap() error { return e.error }

// get sends a request whose answer ends when nothing comes for a while. stop must be called.
func (c *Client) get(ctx context.Context, address string, header http.Header) (*http.Response, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stall := c.Stall
	if stall == 0 {
		stall = time.Minute
	}
	timer := time.AfterFunc(stall, func() { cancel(fmt.Errorf("nothing came for %v", stall)) })
	stop := func() { timer.Stop(); cancel(nil) }
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		stop()
		return nil, nil, err
	}
	request.Header = header.Clone()
	if request.Header == nil {
		request.Header = http.Header{}
	}
	request.Header.Set("User-Agent", "tfbert (+https://github.com/tfbert/go)")
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	r, err := client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		stop()
		if own, ok := errors.AsType[*url.Error](err); ok {
			err = own.Err // its address may hold a signature
		}
		return nil, nil, &brokenError{fmt.Errorf("%s: %w", redacted(request.URL), err)}
	}
	r.Body = &patientBody{r.Body, ctx, timer, stall}
	return r, func() { r.Body.Close(); stop() }, nil
}

// patientBody starts the clock again at each byte, and says why it ended.
type patientBody struct {
	io.ReadCloser
	ctx   context.Context
	timer *time.Timer
	stall time.Duration
}

// Read implements io.Reader.
func (b *patientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.stall)
	}
	if err != nil && err != io.EOF {
		if cause := context.Cause(b.ctx); cause != nil {
			err = cause
		}
	}
	return n, err
}

// retry calls try until it succeeds, fails for good, or has failed too often.
func (c *Client) retry(ctx context.Context, try func() error) error {
	retries, pause := c.Retries, c.Pause
	if retries == 0 {
		retries = 4
	}
	if pause == 0 {
		pause = 250 * time.Millisecond
	}
	for attempt := 0; ; attempt++ {
		err := try()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err == nil || attempt >= retries || !transient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// transient reports whether another attempt may succeed.
func transient(err error) bool {
	if status, ok := errors.AsType[*StatusError](err); ok {
		switch status.Code {
		case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusRequestedRangeNotSatisfiable:
			return true
		}
		return false
	}
	_, broken := errors.AsType[*brokenError](err)
	return broken && !permanent(err)
}

// permanent reports whether a request failed in a way that time does not change: nobody has the name of the server, or
// its certificate is not trusted.
func permanent(err error) bool {
	name, unknown := errors.AsType[*net.DNSError](err)
	_, untrusted := errors.AsType[*tls.CertificateVerificationError](err)
	return untrusted || unknown && name.IsNotFound
}

// redacted returns the text of an address for an error or a log: without a password, and without a query, which may be
// a signature that opens the file.
func redacted(u *url.URL) string {
	short := *u
	short.RawQuery, short.Fragment = "", ""
	return short.Redacted()
}

// Redacted returns an address without its password and query.
func Redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that cannot be read"
	}
	return redacted(u)
}
