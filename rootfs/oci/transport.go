package oci

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"time"
)

const (
	dialTimeout   = 15 * time.Second
	headerTimeout = time.Minute
	// stallTimeout is how long a body may be silent before the connection
	// counts as broken.
	stallTimeout = time.Minute
	// smallBody bounds the answers that the authentication code reads.
	smallBody    = 1 << 20
	maxRedirects = 10
)

var (
	errStalled  = errors.New("no data for too long")
	errTooLarge = fail(ErrLimit, "the registry's answer is too large")
	errPlain    = fail(ErrNetwork, "refusing plain HTTP: it must be allowed explicitly (insecure)")
)

// guard is the lowest round tripper, below redirects and authentication: it
// bounds every body in size and silence, and refuses plain HTTP to other hosts
// when it is not allowed.
type guard struct {
	inner    *http.Transport
	insecure bool
	stall    time.Duration
}

func newGuard(o PullOptions) (*guard, error) {
	conf := &tls.Config{InsecureSkipVerify: o.Insecure}
	if len(o.CACerts) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for i, pem := range o.CACerts {
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fail(ErrInvalidOptions, "CACerts[%d] holds no certificate in PEM", i)
			}
		}
		conf.RootCAs = pool
	}
	return &guard{insecure: o.Insecure, stall: stallTimeout, inner: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:        conf,
		TLSHandshakeTimeout:    dialTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 256 << 10,
		MaxIdleConnsPerHost:    parallelLayers,
		IdleConnTimeout:        10 * time.Second,
		ForceAttemptHTTP2:      true,
		// A body that was compressed on the way would not match its digest.
		DisableCompression: true,
	}}, nil
}

func (g *guard) close() { g.inner.CloseIdleConnections() }

type bodyLimitKey struct{}

// withBodyLimit lets the answers to requests of this context be as long as n bytes.
func withBodyLimit(ctx context.Context, n int64) context.Context {
	return context.WithValue(ctx, bodyLimitKey{}, n)
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !g.insecure && !isLoopback(req.URL.Hostname()) {
		return nil, errPlain
	}
	limit, ok := req.Context().Value(bodyLimitKey{}).(int64)
	if !ok {
		limit = smallBody
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := g.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &guardedBody{body: resp.Body, ctx: ctx, cancel: cancel, left: limit, stall: g.stall}
	b.timer = time.AfterFunc(g.stall, func() { cancel(errStalled) })
	resp.Body = b
	return resp, nil
}

// guardedBody is a response's body with its bounds.
type guardedBody struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	stall  time.Duration
	left   int64
	once   sync.Once
}

func (b *guardedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLarge
	}
	b.timer.Reset(b.stall)
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more than allowed tells too long from exactly as long
	}
	n, err := b.body.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return n, errTooLarge
	}
	if err != nil && err != io.EOF && b.ctx.Err() != nil {
		err = context.Cause(b.ctx)
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.once.Do(func() {
		b.timer.Stop()
		b.cancel(nil)
	})
	return b.body.Close()
}

// checkRedirect is the redirect policy for manifests and blobs. Credentials do
// not follow to another host: the authentication code adds them for the
// registry's own only.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= maxRedirects {
		return fail(ErrImagePull, "more than %d redirects", maxRedirects)
	}
	// A registry out there has no business with addresses in here.
	if isInternal(req.URL.Hostname()) && !isInternal(via[0].URL.Hostname()) && req.URL.Hostname() != via[0].URL.Hostname() {
		return fail(ErrImagePull, "refusing a redirect to the internal address %s", clean(req.URL.Hostname()))
	}
	return nil
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

func isInternal(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	a = a.Unmap()
	return a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsUnspecified()
}

// transient marks an error that is worth another try.
type transient struct {
	err   error
	after time.Duration // the least wait, as the registry wishes
}

func (t *transient) Error() string { return t.err.Error() }
func (t *transient) Unwrap() error { return t.err }

// networkError says what went wrong below HTTP, without the parts of a URL that
// can hold a secret.
func networkError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	for _, ours := range []error{ErrImagePull, ErrNetwork, ErrLimit, ErrAuth} {
		if errors.Is(err, ours) {
			var ue *url.Error
			if errors.As(err, &ue) {
				return ue.Err
			}
			return err
		}
	}
	where := ""
	var ue *url.Error
	if errors.As(err, &ue) {
		where = safeURL(ue.URL) + ": "
		err = ue.Err
	}
	if isCertificateError(err) {
		return fail(ErrNetwork, "%s%s: give the certificate of the registry's authority, or allow an insecure registry", where, clean(err.Error()))
	}
	said := fail(ErrNetwork, "%s%s", where, clean(err.Error()))
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return said // a host that does not exist will not do so soon
	}
	return &transient{err: said}
}

func isCertificateError(err error) bool {
	var unknown x509.UnknownAuthorityError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &unknown) || errors.As(err, &cert)
}

// safeURL leaves out user and query, where redirects carry signatures.
func safeURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "an unreadable URL"
	}
	return clean(fmt.Sprintf("%s://%s%s", u.Scheme, u.Host, u.Path))
}
