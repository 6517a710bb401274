package libtf

import "strings"

// A pin is a wheel on PyPI whose content is known beforehand.
type pin struct {
	Wheel  string
	SHA256 string
	Size   int64 // bytes, for the progress of its download
}

// pinned returns the wheels that Install downloads by default. The digests are those of sha256sum
// over the downloaded files, which are those that the package index lists.
func pinned() []pin {
	return []pin{
		{"tensorflow_cpu-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl", "dcc8afd32930e42d5296b6ee19078b773706830af4ea97fbe503b9f5e0f820cb", 274000871},
		{"tensorflow-2.21.0-cp312-cp312-manylinux_2_27_x86_64.whl", "b3b95643c4e70eb925839938fb35cbe142f317ec84af6844ee61513713bb13c0", 572611111},
		{"tensorflow-2.21.0-cp312-cp312-manylinux_2_27_aarch64.whl", "b07d15737406533898e36c7ef7944b1be18e9028dc521b9229952c537bbc5552", 281946471},
	}
}

// findPin returns the pin of a project's version for an architecture.
func findPin(pins []pin, project, version, arch string) (pin, bool) {
	prefix := strings.ReplaceAll(project, "-", "_") + "-" + version + "-"
	for _, p := range pins {
		if strings.HasPrefix(p.Wheel, prefix) && strings.HasSuffix(p.Wheel, "_"+arch+".whl") {
			return p, true
		}
	}
	return pin{}, false
}
