package cpu

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestParse(t *testing.T) {
	const intel = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R) Platinum\n" +
		"flags\t\t: fpu avx2 fma avx512f avx512_bf16 amx_tile\n\nprocessor\t: 1\nflags\t: none\n"
	cpu := parse(strings.NewReader(intel), "amd64")
	assert.Equal(t, "Intel(R) Xeon(R) Platinum", cpu.Model)
	for name, want := range map[string]bool{
		"avx2": true, "fma": true, "avx512f": true, "avx512_bf16": true, "amx_tile": true,
		"avx512_fp16": false, "amx_bf16": false, "amx_int8": false, "fpu": false,
	} {
		assert.Equal(t, want, cpu.Has(name), name)
	}
	arm := parse(strings.NewReader("processor : 0\nFeatures : fp asimd asimdhp bf16\n"), "arm64")
	assert.True(t, arm.Has("bf16"))
	assert.True(t, arm.Has("asimdhp"))
	assert.False(t, arm.Has("sve"))
	assert.False(t, parse(strings.NewReader(intel), "amd64").Has("amx_bf16"), "calls share nothing")
}
