package repository

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/serve/batch"
)

// A configuration that claims billions of something does not allocate memory for them.
func TestConfigClaims(t *testing.T) {
	for name, text := range map[string]string{
		"instances": "instance_group [ { count: 2147483647 }, { count: 2147483647 } ]",
		"batch":     "max_batch_size: 2147483647 dynamic_batching { preferred_batch_size: [ 2147483647 ] }",
		"priorities": "dynamic_batching { priority_levels: 18446744073709551615 " +
			"default_priority_level: 18446744073709551615 }",
		"queue": "dynamic_batching { default_queue_policy { " +
			"default_timeout_microseconds: 18446744073709551615 max_queue_size: 4294967295 } }",
		"versions": "version_policy { latest { num_versions: 4294967295 } }",
		"dims": `max_batch_size: 8 input { name: "input_ids" data_type: TYPE_INT32 ` +
			`dims: [ 9223372036854775807, 9223372036854775807 ] }`,
		"nested":    strings.Repeat("input { reshape { ", 20000),
		"lists":     "input [" + strings.Repeat("[", 100000),
		"a string":  `name: "` + strings.Repeat("x", 1<<20),
		"a comment": strings.Repeat("# x\n", 1<<18),
	} {
		t.Run(name, func(t *testing.T) {
			bounded.Run(t, 20*len(text), 10*time.Second, func() {
				c, err := parseConfig([]byte(text))
				if err != nil {
					return
				}
				assert.LessOrEqual(t, len(chooseVersions(c, []int64{1, 2, 3})), 3)
				var options batch.Options
				if _, err := completeConfig(c, "bert", fixedBackend(), &options); err != nil {
					return
				}
				if b, err := batch.New(emptyPredictor{}, options); err == nil {
					b.Close()
				}
			})
		})
	}
}

func TestConfigFileIsBounded(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "m", configFile)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "m", "1"), 0o777))
	requireRefused := func(want string) {
		t.Helper()
		bounded.Run(t, 0, 10*time.Second, func() {
			_, _, err := tree(root).sources("m", nil)
			assert.ErrorContains(t, err, want)
		})
	}
	require.NoError(t, os.WriteFile(path, nil, 0o666))
	if os.Truncate(path, 8<<40) == nil { // a hole, which takes no disk
		requireRefused("config.pbtxt: 8796093022208 bytes is too large for a model configuration")
	}
	require.NoError(t, os.Remove(path))
	require.NoError(t, os.Mkdir(path, 0o777))
	requireRefused("config.pbtxt is not a plain file")
	if _, err := os.Stat("/dev/zero"); err == nil {
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Symlink("/dev/zero", path))
		requireRefused("config.pbtxt is not a plain file")
	}
}

// A version has one name. With two, two models would be loaded for it.
func TestVersionFolders(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{
		"1", "01", "+1", "-1", "0", "00", "1x", "1.0", "0x1", "1_0", " 1", "٣", "9223372036854775808", "10",
		"9223372036854775807",
	} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o777))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "7"), nil, 0o666))
	require.NoError(t, os.Symlink(t.TempDir(), filepath.Join(dir, "3")))
	require.NoError(t, os.Symlink("nowhere", filepath.Join(dir, "4")))
	require.NoError(t, os.Symlink("5", filepath.Join(dir, "5")))
	versions, err := versionsIn(dir)
	require.NoError(t, err)
	assert.Equal(t, []int64{1, 3, 10, 1<<63 - 1}, versions)
}

// Links are followed, because the operator made them; names in files and requests do not lead out.
func TestLinksInRepository(t *testing.T) {
	elsewhere, root := t.TempDir(), t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(elsewhere, "1", "model.savedmodel"), 0o777))
	require.NoError(t, os.Symlink(elsewhere, filepath.Join(root, "linked")))
	names, err := tree(root).names()
	require.NoError(t, err)
	assert.Equal(t, []string{"linked"}, names)
	_, sources, err := tree(root).sources("linked", nil)
	require.NoError(t, err)
	model := filepath.Join(root, "linked")
	want := Source{Name: "linked", Version: 1, ModelDir: model, Dir: filepath.Join(model, "1", "model.savedmodel")}
	assert.Equal(t, []Source{want}, sources)

	for _, name := range []string{"../x", "/etc", "..", ".", `..\x`, "x/../../y", `\000`} {
		text := `default_model_filename: "` + strings.ReplaceAll(name, `\x`, `\\x`) + `"`
		require.NoError(t, os.WriteFile(filepath.Join(elsewhere, configFile), []byte(text), 0o666))
		_, _, err := tree(root).sources("linked", nil)
		assert.ErrorContains(t, err, "it must be a name within the version's folder", "%q", name)
	}
}
