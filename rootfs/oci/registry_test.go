package oci

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
)

const (
	user   = "someone"
	secret = "hunter2-hunter2"
)

// basicAuth answers requests without the right credentials.
func basicAuth(w http.ResponseWriter, r *http.Request) bool {
	if u, p, ok := r.BasicAuth(); ok && u == user && p == secret {
		return false
	}
	w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
	w.WriteHeader(http.StatusUnauthorized)
	fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	return true
}

// bearerAuth is a token server and a registry that wants its tokens, each good
// for a few requests only.
func bearerAuth(f *fakeRegistry, anonymous bool) func(w http.ResponseWriter, r *http.Request) bool {
	var mu sync.Mutex
	issued, uses := 0, map[string]int{}
	return func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.URL.Path == "/token" {
			u, p, _ := r.BasicAuth()
			if !anonymous && (u != user || p != secret) {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			issued++
			fmt.Fprintf(w, `{"token":"token-%d"}`, issued)
			return true
		}
		if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer token-"); ok && uses[token] < 2 {
			uses[token]++
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="test",scope="repository:app:pull"`, f.URL))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestAuth(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 1000), randomTar(t, 2000)))
	config := t.TempDir()
	t.Setenv("DOCKER_CONFIG", config)
	dockerConfig := func(content string) {
		if err := os.WriteFile(filepath.Join(config, "config.json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	helper := func(name, script string) {
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	helper("good", fmt.Sprintf("cat >/dev/null; echo '{\"Username\":%q,\"Secret\":%q}'", user, secret))
	helper("bad", "cat >/dev/null; echo no keyring here; exit 1")
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
	explicit, wrong := PullOptions{Username: user, Password: secret}, PullOptions{Username: user, Password: "not-" + secret}

	for name, tc := range map[string]struct {
		before func(http.ResponseWriter, *http.Request) bool
		config string
		o      PullOptions
		want   error
		says   string
	}{
		"basic":                     {basicAuth, "{}", explicit, nil, ""},
		"basic, wrong":              {basicAuth, "{}", wrong, ErrAuth, "401"},
		"basic, none":               {basicAuth, "{}", PullOptions{}, ErrAuth, "authentication required"},
		"basic, Docker's":           {basicAuth, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host, auth), PullOptions{}, nil, ""},
		"basic, explicit over it":   {basicAuth, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host, auth), wrong, ErrAuth, ""},
		"basic, helper":             {basicAuth, fmt.Sprintf(`{"credHelpers":{%q:"good"}}`, reg.host), PullOptions{}, nil, ""},
		"basic, store":              {basicAuth, `{"credsStore":"good"}`, PullOptions{}, nil, ""},
		"basic, broken helper":      {basicAuth, fmt.Sprintf(`{"credHelpers":{%q:"bad"}}`, reg.host), PullOptions{}, ErrAuth, "no keyring here"},
		"bearer":                    {bearerAuth(reg, false), "{}", explicit, nil, ""},
		"bearer, wrong":             {bearerAuth(reg, false), "{}", wrong, ErrAuth, ""},
		"bearer, none":              {bearerAuth(reg, false), "{}", PullOptions{}, ErrAuth, ""},
		"bearer, anonymous":         {bearerAuth(reg, true), "{}", PullOptions{}, nil, ""},
		"bearer, Docker's":          {bearerAuth(reg, false), fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, reg.host, auth), PullOptions{}, nil, ""},
		"no auth, broken helper":    {nil, fmt.Sprintf(`{"credHelpers":{%q:"bad"}}`, reg.host), PullOptions{}, nil, ""},
		"no auth, broken config":    {nil, "{", PullOptions{}, nil, ""},
		"no auth, credentials":      {nil, "{}", explicit, nil, ""},
		"basic, broken config":      {basicAuth, "{", PullOptions{}, ErrAuth, "Docker's configuration"},
		"forbidden":                 {status(403, `{"errors":[{"code":"DENIED","message":"not \u001b[31myours"}]}`), "{}", explicit, ErrAuth, "not ?[31myours"},
		"realm elsewhere, internal": {realm("http://169.254.169.254/token"), "{}", explicit, ErrImagePull, ""},
	} {
		dockerConfig(tc.config)
		reg.intercept(tc.before)
		s := newStore(t, t.TempDir())
		_, err := s.Pull(t.Context(), ref, tc.o)
		if !errors.Is(err, tc.want) || err != nil && (tc.want == nil || !errors.Is(err, ErrImagePull) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), auth)) {
			t.Errorf("%s: a secret is printed: %v", name, err)
		}
	}
}

// A credential helper that hangs does not keep a cancelled pull.
func TestHangingHelper(t *testing.T) {
	reg := newRegistry(t)
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	release := filepath.Join(dir, "release")
	for name, content := range map[string]string{
		"config.json":            `{"credsStore":"hang"}`,
		"docker-credential-hang": "#!/bin/sh\nwhile [ -e \"$0\" ] && ! [ -e " + release + " ]; do sleep 0.02; done\nexit 1\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := newStore(t, t.TempDir()).Pull(ctx, reg.host+"/app", PullOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The library asks one helper at a time, so this waits for the end of the other.
	if _, err := newStore(t, t.TempDir()).Pull(t.Context(), reg.host+"/app", PullOptions{}); !errors.Is(err, ErrImageNotFound) {
		t.Error(err)
	}
}

func status(code int, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.WriteHeader(code)
		fmt.Fprint(w, body)
		return true
	}
}

func realm(url string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+url+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
}

func TestTLS(t *testing.T) {
	reg := startRegistry(t, true)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 1000)))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: reg.Certificate().Raw})
	for name, tc := range map[string]struct {
		o    PullOptions
		want error
	}{
		"own authority":     {PullOptions{CACerts: [][]byte{ca}}, nil},
		"unknown authority": {PullOptions{}, ErrNetwork},
		"insecure":          {PullOptions{Insecure: true}, nil},
	} {
		_, err := newStore(t, t.TempDir()).Pull(t.Context(), ref, tc.o)
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Plain HTTP goes to this host only, unless allowed. The proxy stands for a
// registry on another host.
func TestPlainHTTP(t *testing.T) {
	g, err := newGuard(PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	for _, u := range []string{"http://registry.test/v2/", "http://10.0.0.1/v2/", "http://127.0.0.1.example.com/v2/"} {
		req, _ := http.NewRequest(http.MethodGet, u, nil)
		if _, err := g.RoundTrip(req); !errors.Is(err, errPlain) {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func TestRedirects(t *testing.T) {
	to := func(via, target string) error {
		first, _ := http.NewRequest(http.MethodGet, via, nil)
		req, _ := http.NewRequest(http.MethodGet, target, nil)
		return checkRedirect(req, []*http.Request{first})
	}
	for _, tc := range []struct {
		via, target string
		ok          bool
	}{
		{"https://registry.test/x", "https://cdn.example.com/x", true},
		{"https://registry.test/x", "http://169.254.169.254/x", false},
		{"https://registry.test/x", "https://127.0.0.1:99/x", false},
		{"https://registry.test/x", "https://[::1]/x", false},
		{"https://registry.test/x", "https://localhost/x", false},
		{"https://127.0.0.1:5000/x", "https://127.0.0.1:5001/x", true},
	} {
		if err := to(tc.via, tc.target); (err == nil) != tc.ok {
			t.Errorf("%s → %s: %v", tc.via, tc.target, err)
		}
	}
}

// flaky breaks each blob's connection after some bytes, so many times in all.
func flaky(t *testing.T, reg *fakeRegistry, blobs map[string][]byte, after, times int, ranges bool) {
	var mu sync.Mutex
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		body, ok := blobs[filepath.Base(r.URL.Path)]
		if !ok || !isBlob(r) {
			return false
		}
		start := 0
		if h := r.Header.Get("Range"); h != "" && ranges {
			fmt.Sscanf(h, "bytes=%d-", &start)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(body)-1, len(body)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(body)-start))
		if start > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		mu.Lock()
		times--
		cut := times >= 0
		mu.Unlock()
		if cut {
			w.Write(body[start:min(len(body), start+after)])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Write(body[start:])
		return true
	})
}

func TestResume(t *testing.T) {
	layer := randomTar(t, 5<<20)
	img := imageOf(t, layer)
	packed := pack(t, "gzip", layer)
	blobs := map[string][]byte{digestOf(packed): packed}
	for _, tc := range []struct {
		name   string
		times  int
		ranges bool
		want   error
	}{
		{"with ranges", 4, true, nil},
		{"without ranges", 2, false, nil},
		{"for ever, with progress", 1000, true, nil}, // every piece is progress
		{"for ever, without", 1000, false, ErrNetwork},
	} {
		reg := newRegistry(t)
		reg.Config.ErrorLog = nopLogger
		ref := reg.push(t, "app", img)
		flaky(t, reg, blobs, progressWorth, tc.times, tc.ranges)
		s := newStore(t, t.TempDir())
		got, err := s.Pull(t.Context(), ref, PullOptions{})
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if err == nil && !bytes.Equal(content(t, got), layer) {
			t.Errorf("%s: wrong root", tc.name)
		}
		if n := reg.count("bytes=1048576-"); tc.ranges && n != 1 {
			t.Errorf("%s: %d requests for the second MiB: %v", tc.name, n, reg.requests)
		}
		if err != nil { // what came is used by the next pull
			reg.intercept(nil)
			if got, err := s.Pull(t.Context(), ref, PullOptions{}); err != nil || !bytes.Equal(content(t, got), layer) {
				t.Errorf("%s: afterwards: %v", tc.name, err)
			}
			if reg.count(fmt.Sprintf("bytes=%d-", progressWorth)) == 0 {
				t.Errorf("%s: the next pull did not go on where the last one ended: %v", tc.name, reg.requests)
			}
		}
	}
}

func TestRetries(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 1000)))
	for name, tc := range map[string]struct {
		path  string
		code  int
		times int
		want  error
	}{
		"ping 503":         {"/v2/", 503, 2, nil},
		"manifest 500":     {"/manifests/", 500, 2, nil},
		"manifest 429":     {"/manifests/", 429, 2, nil},
		"blob 502":         {"/blobs/", 502, 3, nil},
		"blob 429 always":  {"/blobs/", 429, 1000, ErrNetwork},
		"blob 403":         {"/blobs/", 403, 1, ErrAuth},
		"manifest 404":     {"/manifests/", 404, 1, ErrImageNotFound},
		"blob 404":         {"/blobs/", 404, 1000, ErrInvalidImage},
		"manifest 400":     {"/manifests/", 400, 1, ErrImagePull},
		"ping unreachable": {"/v2/", -1, 1000, ErrNetwork},
	} {
		var mu sync.Mutex
		left := tc.times
		reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			mu.Lock()
			defer mu.Unlock()
			if left <= 0 || !strings.Contains(r.URL.Path, tc.path) || tc.path == "/v2/" && r.URL.Path != tc.path {
				return false
			}
			left--
			if tc.code < 0 {
				panic(http.ErrAbortHandler)
			}
			w.Header().Set("Retry-After", "0")
			w.WriteHeader(tc.code)
			return true
		})
		_, err := newStore(t, t.TempDir()).Pull(t.Context(), ref, PullOptions{})
		if !errors.Is(err, tc.want) || tc.want == nil && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if tc.want == ErrImageNotFound && errors.Is(err, ErrImagePull) {
			t.Errorf("%s: not found is not a failed pull: %v", name, err)
		}
	}
}

// A manifest that is not the one asked for by digest is refused.
func TestManifestDigest(t *testing.T) {
	reg := newRegistry(t)
	reg.push(t, "app", imageOf(t, randomTar(t, 100)))
	other := imageOf(t, randomTar(t, 100))
	raw, err := other.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			return false
		}
		w.Header().Set("Content-Type", string(types.OCIManifestSchema1))
		w.Write(raw)
		return true
	})
	_, err = newStore(t, t.TempDir()).Pull(t.Context(), reg.host+"/app@sha256:"+strings.Repeat("c", 64), PullOptions{})
	if !errors.Is(err, ErrDigest) {
		t.Error(err)
	}
}

// TestStall: a body that falls silent counts as a broken connection.
func TestStall(t *testing.T) {
	hold := make(chan struct{})
	reg := newRegistry(t)
	defer close(hold)
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000")
		w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		<-hold
		return true
	})
	g, err := newGuard(PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	g.stall = 20 * time.Millisecond
	req, _ := http.NewRequest(http.MethodGet, reg.URL, nil)
	resp, err := g.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = b.ReadFrom(resp.Body)
	var tr *transient
	if !errors.Is(err, errStalled) || !errors.As(networkError(err), &tr) {
		t.Errorf("%v", err)
	}
}

// Signatures in URLs are not printed.
func TestURLsAreClean(t *testing.T) {
	reg := newRegistry(t)
	ref := reg.push(t, "app", imageOf(t, randomTar(t, 1000)))
	reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !isBlob(r) {
			return false
		}
		http.Redirect(w, r, "http://127.0.0.1:1/x?signature="+secret, http.StatusFound)
		return true
	})
	_, err := newStore(t, t.TempDir()).Pull(t.Context(), ref, PullOptions{})
	if !errors.Is(err, ErrNetwork) || strings.Contains(err.Error(), secret) {
		t.Error(err)
	}
}

// Credentials do not follow a redirect to another server.
func TestRedirectWithoutCredentials(t *testing.T) {
	reg := newRegistry(t)
	layer := randomTar(t, 1000)
	packed := pack(t, "gzip", layer)
	ref := reg.push(t, "app", imageOf(t, layer))
	var mu sync.Mutex
	asked, leaked := 0, ""
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked++
		leaked += r.Header.Get("Authorization") + r.Header.Get("Cookie")
		w.Write(packed)
	}))
	defer other.Close()
	for _, auth := range []func(http.ResponseWriter, *http.Request) bool{basicAuth, bearerAuth(reg, false)} {
		reg.intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if auth(w, r) {
				return true
			}
			if !strings.HasSuffix(r.URL.Path, digestOf(packed)) {
				return false
			}
			http.Redirect(w, r, other.URL+"/x", http.StatusTemporaryRedirect)
			return true
		})
		if _, err := newStore(t, t.TempDir()).Pull(t.Context(), ref, PullOptions{Username: user, Password: secret}); err != nil {
			t.Error(err)
		}
	}
	if asked != 2 || leaked != "" {
		t.Errorf("asked %d times, leaked %q", asked, leaked)
	}
}
