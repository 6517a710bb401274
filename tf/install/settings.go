package install

import (
	"bufio"
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tfbert/go/internal/fetch"
)

// defaultIndex is pip's.
const defaultIndex = "https://pypi.org/simple"

// settings are those of pip, by their long names: of its files first, and then of the environment. An installation
// without pip takes the wheels from where pip would.
type settings map[string]string

// readSettings reads pip's files and variables, as pip does for the command download.
func readSettings() settings {
	s := settings{}
	for _, section := range []string{"global", "download"} {
		for _, path := range settingsFiles() {
			s.readFile(path, section)
		}
	}
	for _, variable := range os.Environ() {
		name, value, _ := strings.Cut(variable, "=")
		if name, ok := strings.CutPrefix(name, "PIP_"); ok && value != "" {
			s[settingName(name)] = value
		}
	}
	return s
}

func settingName(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// settingsFiles returns the files that pip reads, of which the later ones win. PIP_CONFIG_FILE replaces the user's own,
// and all of them if it is the null device.
func settingsFiles() (files []string) {
	named := os.Getenv("PIP_CONFIG_FILE")
	if named == os.DevNull {
		return nil
	}
	systems := filepath.SplitList(cmp.Or(os.Getenv("XDG_CONFIG_DIRS"), "/etc/xdg"))
	slices.Reverse(systems)
	for _, dir := range systems {
		files = append(files, filepath.Join(dir, "pip", "pip.conf"))
	}
	files = append(files, "/etc/pip.conf")
	if _, err := os.Stat(named); named == "" || err != nil {
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".pip", "pip.conf"))
		}
		if config, err := os.UserConfigDir(); err == nil {
			files = append(files, filepath.Join(config, "pip", "pip.conf"))
		}
	}
	if venv := os.Getenv("VIRTUAL_ENV"); venv != "" {
		files = append(files, filepath.Join(venv, "pip.conf"))
	}
	return append(files, named)
}

// readFile reads a section of a file in the form of Python's configparser. A file that cannot be read has none.
func (s settings) readFile(path, section string) {
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	inside, key := false, ""
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			inside, key = strings.EqualFold(strings.Trim(line, "[]"), section), ""
		case !inside:
		case key != "" && strings.TrimLeft(lines.Text(), " \t") != lines.Text(): // goes on from the line before
			s[key] += "\n" + line
		default:
			at := strings.IndexAny(line, "=:")
			if at < 0 {
				key = ""
				continue
			}
			key = settingName(strings.TrimSpace(line[:at]))
			s[key] = strings.TrimSpace(line[at+1:])
		}
	}
}

// list returns the values of a setting that has several.
func (s settings) list(name string) []string { return strings.Fields(s[name]) }

// on reports whether a setting that is true or false is true.
func (s settings) on(name string) bool {
	return slices.Contains([]string{"y", "yes", "t", "true", "on", "1"}, strings.ToLower(s[name]))
}

// indexes returns the addresses of the indexes to ask, in order.
func (s settings) indexes() []string {
	if s.on("no-index") {
		return nil
	}
	return append([]string{cmp.Or(s["index-url"], defaultIndex)}, s.list("extra-index-url")...)
}

// check returns an error if pip would not ask an index, and a *needsPipError if only pip can.
func (s settings) check(index string) error {
	u, err := url.Parse(index)
	shown := fetch.Redacted(index)
	switch {
	case err != nil:
		return fmt.Errorf("%s is not the address of a package index", shown)
	case u.Scheme == "https" && !s.trusts(u):
		return nil
	case u.Scheme == "https":
		return &needsPipError{shown + " is trusted without its certificate (trusted-host)"}
	case u.Scheme != "http":
		return &needsPipError{shown + " is not an address of the web"}
	case !isLocal(u.Hostname()) && !s.trusts(u):
		return fmt.Errorf("%s is not an address of https, and its host is not a trusted-host of pip", shown)
	}
	return nil
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// trusts reports whether trusted-host names the host of an address.
func (s settings) trusts(u *url.URL) bool {
	return slices.ContainsFunc(s.list("trusted-host"), func(host string) bool {
		return strings.EqualFold(host, u.Hostname()) || strings.EqualFold(host, u.Host)
	})
}

// client returns a client with the settings of the network.
func (s settings) client() (*fetch.Client, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() // with the proxies of the environment
	if proxy := s["proxy"]; proxy != "" {
		if !strings.Contains(proxy, "://") {
			proxy = "http://" + proxy
		}
		u, err := url.Parse(proxy)
		if err != nil {
			return nil, &needsPipError{"pip's setting proxy is not an address"}
		}
		transport.Proxy = http.ProxyURL(u)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if file := cmp.Or(s["cert"], os.Getenv("REQUESTS_CA_BUNDLE"), os.Getenv("CURL_CA_BUNDLE")); file != "" {
		pem, err := os.ReadFile(file)
		if config.RootCAs = x509.NewCertPool(); err != nil || !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, &needsPipError{"the certificates of " + file + " are not a PEM file"}
		}
	}
	if file := s["client-cert"]; file != "" {
		pair, err := tls.LoadX509KeyPair(file, file)
		if err != nil {
			return nil, &needsPipError{"the client certificate " + file + " is not a PEM file with its key"}
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport.TLSClientConfig = config
	c := &fetch.Client{HTTP: &http.Client{Transport: transport}}
	if n, err := strconv.Atoi(s["retries"]); err == nil {
		if c.Retries = n; n == 0 {
			c.Retries = -1
		}
	}
	timeout := cmp.Or(s["timeout"], s["default-timeout"])
	if seconds, err := strconv.ParseFloat(timeout, 64); err == nil && seconds > 0 {
		c.Stall = time.Duration(seconds * float64(time.Second))
	}
	return c, nil
}
