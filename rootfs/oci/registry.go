package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// source is where an image comes from. What it gives is not trusted.
type source interface {
	// manifest gives a manifest or an index, at most MaxManifest bytes, and
	// its media type. id is a tag or a digest; "" is the source's own choice.
	manifest(ctx context.Context, id string) (content []byte, mediaType string, err error)
	// blob gives a blob from byte offset on, or from the start, as it says.
	blob(ctx context.Context, d v1.Descriptor, offset int64) (content io.ReadCloser, start int64, err error)
}

// registry is a repository in a registry, authenticated for pulling.
type registry struct {
	client *http.Client
	repo   name.Repository
	hint   error // why there are no credentials, if there should be some
}

var acceptManifests = strings.Join([]string{
	string(types.OCIImageIndex), string(types.OCIManifestSchema1),
	string(types.DockerManifestList), string(types.DockerManifestSchema2),
}, ", ")

// connect asks the registry how it wants to be authenticated, and does that.
func (s *Store) connect(ctx context.Context, g *guard, repo name.Repository, o PullOptions) (*registry, error) {
	r := &registry{repo: repo}
	auth := authn.Anonymous
	if o.Username != "" {
		auth = &authn.Basic{Username: o.Username, Password: o.Password}
	} else if a, err := dockerAuth(ctx, repo); ctx.Err() != nil {
		return nil, context.Cause(ctx)
	} else if err != nil {
		// As Docker does, go on without: many images need none.
		r.hint = fmt.Errorf("credentials from Docker's configuration: %s", clean(err.Error()))
	} else {
		auth = a
	}
	err := s.retry(ctx, func() error {
		t, err := transport.NewWithContext(ctx, repo.Registry, auth, g, []string{repo.Scope(transport.PullScope)})
		if err != nil {
			return r.connectError(err)
		}
		r.client = &http.Client{Transport: t, CheckRedirect: checkRedirect}
		return nil
	})
	return r, err
}

// dockerAuth looks for credentials in Docker's configuration. That may run a
// credential helper, which knows no context and may wait for a person: after a
// while, or when ctx ends, it is left to end by itself.
func dockerAuth(ctx context.Context, repo name.Repository) (authn.Authenticator, error) {
	type result struct {
		auth authn.Authenticator
		err  error
	}
	found := make(chan result, 1)
	go func() {
		a, err := authn.Resolve(ctx, authn.DefaultKeychain, repo)
		found <- result{a, err}
	}()
	select {
	case r := <-found:
		return r.auth, r.err
	case <-time.After(helperTimeout):
		return nil, fmt.Errorf("the credential helper has not answered within %v", helperTimeout)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (r *registry) connectError(err error) error {
	var te *transport.Error
	if !errors.As(err, &te) || isCertificateError(err) { // plain HTTP was tried after TLS
		return networkError(err)
	}
	var said []string
	for _, d := range te.Errors {
		said = append(said, diagnosis(string(d.Code), d.Message))
	}
	return r.statusError("signing in", te.StatusCode, strings.Join(said, "; "), 0)
}

func diagnosis(code, message string) string {
	return clean(strings.TrimSuffix(code+": "+message, ": "))
}

// statusError turns an HTTP status into an error of this package.
func (r *registry) statusError(doing string, status int, said string, after time.Duration) error {
	text := fmt.Sprintf("%s: the registry answered %d %s", doing, status, http.StatusText(status))
	if said != "" {
		text += " (" + said + ")"
	}
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		err := fail(ErrAuth, "%s", text)
		if r.hint != nil {
			err = fmt.Errorf("%w; %w", err, r.hint)
		}
		return err
	case status == http.StatusTooManyRequests, status == http.StatusRequestTimeout, status >= 500:
		return &transient{err: fail(ErrNetwork, "%s", text), after: after}
	}
	return errors.New(text)
}

// get does one request.
func (r *registry) get(ctx context.Context, kind, id string, limit int64, header http.Header) (*http.Response, error) {
	// The scheme is that of the sign-in, whatever it says here.
	url := "https://" + r.repo.RegistryStr() + "/v2/" + r.repo.RepositoryStr() + "/" + kind + "/" + id
	req, err := http.NewRequestWithContext(withBodyLimit(ctx, limit), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, err := r.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, r.connectError(err)
	}
	return resp, nil
}

// refuse reads the registry's explanation and turns the answer into an error.
func (r *registry) refuse(doing string, resp *http.Response) error {
	defer resp.Body.Close()
	var answer struct {
		Errors []struct{ Code, Message string }
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	_ = json.Unmarshal(body, &answer) // many errors come without
	var said []string
	for i, e := range answer.Errors {
		if i == 3 {
			break
		}
		said = append(said, diagnosis(e.Code, e.Message))
	}
	var after time.Duration
	if sec, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		after = time.Duration(max(0, min(sec, 30))) * time.Second
	}
	return r.statusError(doing, resp.StatusCode, strings.Join(said, "; "), after)
}

func (r *registry) manifest(ctx context.Context, id string) ([]byte, string, error) {
	resp, err := r.get(ctx, "manifests", id, MaxManifest, http.Header{"Accept": {acceptManifests}})
	if err != nil {
		return nil, "", err
	}
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		resp.Body.Close()
		return nil, "", ErrImageNotFound
	default:
		return nil, "", r.refuse("manifest", resp)
	}
	defer resp.Body.Close()
	if resp.ContentLength > MaxManifest {
		return nil, "", fail(ErrLimit, "a manifest of %d bytes, more than %d", resp.ContentLength, MaxManifest)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", networkError(err)
	}
	mediaType, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return b, strings.TrimSpace(mediaType), nil
}

func (r *registry) blob(ctx context.Context, d v1.Descriptor, offset int64) (io.ReadCloser, int64, error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, d.Size-1)) // not every registry takes an open end
	}
	resp, err := r.get(ctx, "blobs", d.Digest.String(), d.Size, header)
	if err != nil {
		return nil, 0, err
	}
	want := d.Size
	switch {
	case resp.StatusCode == http.StatusOK:
		offset = 0
	case resp.StatusCode == http.StatusPartialContent && offset > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)):
		want -= offset
	case resp.StatusCode == http.StatusPartialContent, resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		resp.Body.Close()
		if offset > 0 {
			return r.blob(ctx, d, 0)
		}
		return nil, 0, errors.New("blob: the registry answered with another range than was asked for")
	case resp.StatusCode == http.StatusNotFound:
		resp.Body.Close()
		return nil, 0, fail(ErrInvalidImage, "the registry lacks %s, which the image consists of", d.Digest)
	default:
		return nil, 0, r.refuse("blob", resp)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != want {
		resp.Body.Close()
		return nil, 0, fail(ErrDigest, "%s: the registry announces %d bytes, the manifest %d", d.Digest, resp.ContentLength, want)
	}
	return resp.Body, offset, nil
}

const (
	maxAttempts = 6
	// helperTimeout is long enough for somebody to unlock a keyring.
	helperTimeout = time.Minute
)

func defaultBackoff(attempt int) time.Duration {
	return min(200*time.Millisecond<<attempt, 5*time.Second)
}

// retry calls f again, with pauses, as long as its error is transient.
func (s *Store) retry(ctx context.Context, f func() error) error {
	for attempt := 0; ; attempt++ {
		err := f()
		var t *transient
		if err == nil || !errors.As(err, &t) {
			return err
		}
		if attempt+1 == maxAttempts {
			return fmt.Errorf("%w (%d attempts)", t.err, maxAttempts)
		}
		if err := sleep(ctx, max(s.backoff(attempt), t.after)); err != nil {
			return err
		}
	}
}
