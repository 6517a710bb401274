package wordpiece

import (
	"encoding/json"
	"flag"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestProfileNames(t *testing.T) {
	for profile, name := range map[Profile]string{NVIDIA1903: "nvidia-19.03", Google: "google",
		NVIDIA2006: "nvidia-20.06"} {
		assert.Equal(t, name, profile.String())
		var parsed Profile
		require.NoError(t, parsed.UnmarshalText([]byte(name)))
		assert.Equal(t, profile, parsed)
	}
	p := Google
	assert.EqualError(t, p.UnmarshalText([]byte("nvidia")),
		`unknown profile "nvidia": want one of nvidia-19.03, google, nvidia-20.06`)
	assert.Equal(t, Google, p)
	assert.Equal(t, "Profile(7)", Profile(7).String())
}

func TestProfileAsText(t *testing.T) {
	var settings struct{ Profile Profile }
	require.NoError(t, json.Unmarshal([]byte(`{"profile":"google"}`), &settings))
	assert.Equal(t, Google, settings.Profile)
	text, err := json.Marshal(settings)
	require.NoError(t, err)
	assert.Equal(t, `{"Profile":"google"}`, string(text))
	assert.Error(t, json.Unmarshal([]byte(`{"profile":"bert"}`), &settings))
	_, err = json.Marshal(Profile(-1))
	assert.Error(t, err)

	flags := flag.NewFlagSet("", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var p Profile
	flags.TextVar(&p, "profile", NVIDIA1903, "")
	require.NoError(t, flags.Parse([]string{"-profile", "nvidia-20.06"}))
	assert.Equal(t, NVIDIA2006, p)
}
