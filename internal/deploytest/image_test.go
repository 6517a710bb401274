package deploytest

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// TestImage follows the steps of the Dockerfile without Docker: each stage is a folder that bubblewrap shows as the
// root of the system, over this machine's Debian and Go in place of the base images (TFBERT_DEBIAN_ROOT names the root
// of a Debian that debootstrap made, for the image itself). Then it runs the image as Docker would, read-only, as its
// user and without a network, until its health check succeeds, and asks a question. It downloads TensorFlow.
func TestImage(t *testing.T) {
	if os.Getenv("TFBERT_DEPLOY") == "" {
		testenv.Missing(t, "deploy", "TFBERT_DEPLOY is not set: the image is not built, which takes minutes and a download")
	}
	s := &sandbox{bwrap: tool(t, "bwrap"), root: testenv.Root(t), base: os.Getenv("TFBERT_DEBIAN_ROOT")}
	testenv.Model(t)
	tool(t, "git")
	if os.Geteuid() != 0 {
		testenv.Missing(t, "deploy", "the image is run as another user, which only root can")
	}
	text, err := os.ReadFile(filepath.Join(s.root, "Dockerfile"))
	require.NoError(t, err)
	stages := map[string]*stage{}
	var last *stage
	for _, line := range instructions(string(text)) {
		name, rest, _ := strings.Cut(line, " ")
		t.Log(line)
		switch name {
		case "FROM":
			words := strings.Fields(rest)
			last = &stage{image: words[0], dir: t.TempDir(), workDir: "/"}
			last.env = []string{"PATH=/usr/local/go/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME=/root"}
			if len(words) == 3 && words[1] == "AS" {
				stages[words[2]] = last
			}
		case "WORKDIR":
			last.workDir = rest
			require.NoError(t, os.MkdirAll(filepath.Join(last.dir, rest), 0o755))
		case "ENV":
			last.env = append(last.env, rest)
		case "COPY":
			s.copy(t, stages, last, strings.Fields(rest))
		case "RUN":
			cmd := s.command(t, last, nil, "sh", "-c", rest)
			out, err := cmd.CombinedOutput()
			require.NoError(t, err, string(out))
		case "USER":
			last.user = rest
		case "HEALTHCHECK":
			_, check, found := strings.Cut(rest, " CMD ")
			require.True(t, found, "HEALTHCHECK has a CMD")
			last.health = list(t, check)
		case "ENTRYPOINT":
			last.entry = list(t, rest)
		case "CMD":
			last.cmd = list(t, rest)
		case "EXPOSE":
			last.ports = strings.Fields(rest)
		case "STOPSIGNAL":
			assert.Equal(t, "SIGTERM", rest, "which lets requests end")
		default:
			t.Fatalf("%s: the test does not know this instruction", line)
		}
	}
	assert.Contains(t, last.image, "slim")
	assert.Equal(t, []string{"8501", "8500"}, last.ports)
	require.NotEmpty(t, last.user, "the image does not run as root")

	// One script is the container: what Docker runs, its health check, a client, and what `docker stop` sends.
	script := `"$@" >/tmp/log 2>&1 & server=$!
for i in $(seq 300); do HEALTH && break; kill -0 $server || { cat /tmp/log; exit 1; }; sleep 1; done 2>/tmp/health
HEALTH || { cat /tmp/health /tmp/log; exit 1; }
body='{"question":"Who wrote it?","context":"It was written by Ada Lovelace."}'
exec 3<>/dev/tcp/127.0.0.1/8501
head='POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n'
printf "$head"'Content-Length: %d\r\n\r\n%s' ${#body} "$body" >&3
cat <&3
id -u
touch /usr/local/bin/x /models/x 2>&1 | grep -c 'Read-only\|denied'
kill -TERM $server; wait $server; echo "status $?"`
	script = strings.ReplaceAll(script, "HEALTH", strings.Join(last.health, " "))
	run := slices.Concat([]string{"bash", "-c", script, "bash"}, last.entry, last.cmd)
	out, err := s.command(t, last, &container{}, run...).CombinedOutput()
	require.NoError(t, err, string(out))
	for _, want := range []string{"Ada Lovelace", "\n65532\n2\nstatus 0\n"} {
		assert.Contains(t, string(out), want)
	}
}

// instructions returns those of a Dockerfile, each on one line.
func instructions(text string) (all []string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			all = append(all, line)
		}
	}
	return all
}

func list(t *testing.T, text string) (words []string) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(text), &words), "the form that needs no shell")
	return words
}

// A stage is what an image consists of so far.
type stage struct {
	image, dir, workDir, user string
	env, health, entry, cmd   []string
	ports                     []string
}

// container says that a stage is run as an image: as its user, read-only, without a network.
type container struct{}

type sandbox struct{ bwrap, root, base string }

// command makes one that runs in a stage. Of the base image it has the system's programs and libraries; what COPY and
// RUN write is in the stage's folder.
func (s *sandbox) command(t *testing.T, st *stage, as *container, args ...string) *exec.Cmd {
	t.Helper()
	base := "/"
	if as != nil && s.base != "" {
		base = s.base
	}
	bind := []string{"--bind", st.dir, "/"}
	if as != nil {
		bind[0] = "--ro-bind"
	}
	for _, dir := range []string{
		"etc", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/libexec", "usr/share", "usr/include",
	} {
		from := filepath.Join(base, dir)
		if _, err := os.Stat(from); err == nil {
			require.NoError(t, os.MkdirAll(filepath.Join(st.dir, dir), 0o755))
			bind = append(bind, "--ro-bind", from, "/"+dir)
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		link := filepath.Join(st.dir, dir)
		if _, err := os.Lstat(link); err != nil {
			require.NoError(t, os.Symlink("usr/"+dir, link))
		}
	}
	for _, dir := range []string{"dev", "proc", "tmp"} {
		require.NoError(t, os.MkdirAll(filepath.Join(st.dir, dir), 0o755))
	}
	bind = append(bind, "--dev", "/dev", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp",
		"--unshare-pid", "--die-with-parent")
	env := slices.Clone(st.env)
	switch {
	case as != nil:
		uid, gid, _ := strings.Cut(st.user, ":")
		args = slices.Concat([]string{"setpriv", "--reuid", uid, "--regid", gid, "--clear-groups", "--no-new-privs"}, args)
		bind = append(bind, "--unshare-net")
	case strings.HasPrefix(st.image, "golang:"):
		for path, to := range map[string]string{
			goEnv(t, "GOROOT"): "/usr/local/go", goEnv(t, "GOMODCACHE"): "/root/mod", goEnv(t, "GOCACHE"): "/root/cache",
		} {
			require.NoError(t, os.MkdirAll(filepath.Join(st.dir, to), 0o755))
			bind = append(bind, "--bind", path, to)
		}
		env = append(env, "GOROOT=/usr/local/go", "GOMODCACHE=/root/mod", "GOCACHE=/root/cache", "GOTOOLCHAIN=local",
			"GOFLAGS=-mod=readonly")
		for _, variable := range os.Environ() { // how this machine reaches package indexes
			name, _, _ := strings.Cut(strings.ToUpper(variable), "=")
			if strings.HasPrefix(name, "PIP_") || strings.HasSuffix(name, "_PROXY") || name == "GOPROXY" {
				env = append(env, variable)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), s.bwrap, slices.Concat(bind, []string{"--chdir", st.workDir}, args)...)
	cmd.Env = env
	return cmd
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", name).Output()
	require.NoError(t, err)
	return strings.TrimSpace(string(out))
}

// copy copies from another stage, or from the repository what is under version control.
func (s *sandbox) copy(t *testing.T, stages map[string]*stage, to *stage, args []string) {
	t.Helper()
	target := args[len(args)-1]
	if !filepath.IsAbs(target) {
		target = filepath.Join(to.workDir, target)
	}
	target = filepath.Join(to.dir, target)
	require.NoError(t, os.MkdirAll(filepath.Dir(target), 0o755))
	if name, ok := strings.CutPrefix(args[0], "--from="); ok {
		from := filepath.Join(stages[name].dir, args[1])
		out, err := exec.CommandContext(t.Context(), "cp", "-a", from, target).CombinedOutput()
		require.NoError(t, err, string(out))
		return
	}
	require.Equal(t, []string{".", "."}, args)
	script := `cd "$0" && git ls-files -z | xargs -0 cp --parents -a -t "$1"`
	out, err := exec.CommandContext(t.Context(), "sh", "-c", script, s.root, target).CombinedOutput()
	require.NoError(t, err, string(out))
}
