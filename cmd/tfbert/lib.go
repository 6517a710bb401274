package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/machine"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tf/install"
)

func newLib() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lib",
		Short: "Install, find and examine TensorFlow's library",
		Args:  noCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newLibInstall(), newLibPath(), newLibDoctor())
	return cmd
}

func newLibInstall() *cobra.Command {
	var opts install.Options
	cmd := &cobra.Command{
		Use:   "install",
		Short: "Install libtensorflow into the user's cache",
		Long: `Install takes libtensorflow out of a TensorFlow wheel and puts it into your cache,
where every tfbert program finds it. It downloads only wheels whose SHA-256 it
knows, those of TensorFlow ` + install.OldestVersion + ` to ` + install.DefaultVersion + `.

The wheel comes from PyPI or from the index that pip's settings name: its files,
and variables such as PIP_INDEX_URL and HTTPS_PROXY. Python is needed only where
an index asks for what pip alone knows, such as passwords of a keyring.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelInfo
			}
			opts.Log = slog.New(slog.NewTextHandler(belowBar{}, &slog.HandlerOptions{Level: level}))
			stages := stages{}
			opts.Progress = stages.show
			path, err := install.Library(cmd.Context(), opts)
			stages.end()
			if err != nil {
				return installAdvice(err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	cmd.Flags().StringVar(&opts.Version, "tf_version", "", "TensorFlow `version` (default "+install.DefaultVersion+")")
	cmd.Flags().BoolVar(&opts.GPU, "gpu", false, "install the build for NVIDIA GPUs, with CUDA's libraries (3 GB)")
	cmd.Flags().StringVar(&opts.Wheel, "wheel", "", "TensorFlow wheel `file` to use instead of downloading one")
	cmd.Flags().StringVar(&opts.Python, "python", "", "`Python` whose pip downloads, in place of tfbert itself")
	return cmd
}

// installAdvice adds the flags that help.
func installAdvice(err error) error {
	version, ok := errors.AsType[*install.UnknownVersionError](err)
	switch {
	case ok && !version.GPU:
		return fmt.Errorf("%w, or a wheel of your own with --wheel", err)
	case errors.Is(err, install.ErrNoPip):
		return fmt.Errorf("%w, or download the wheel elsewhere and pass it with --wheel", err)
	}
	return err
}

// stages shows the stages of an installation, one after another.
type stages struct {
	stage, wheel string
	progress     progress // nil before the first
}

func (s *stages) show(p install.Progress) {
	if s.progress == nil || p.Stage != s.stage || p.Wheel != s.wheel {
		s.end()
		s.stage, s.wheel = p.Stage, p.Wheel
		if !onTerminal() {
			say("%s", strings.TrimSpace(p.Stage+" "+p.Wheel))
		}
		s.progress = newProgress(p.Stage, "B", p.Total)
	}
	s.progress.Set(p.Done)
}

func (s *stages) end() {
	if s.progress != nil {
		s.progress.Done()
	}
}

func newLibPath() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "path",
		Short: "Print the path of the library that would be loaded",
		Args:  args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return printJSON(cmd.OutOrStdout(), libtf.Candidates())
			}
			path, err := libtf.Path()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), path)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print every place that is looked at, as JSON")
	return cmd
}

// doctor is the machine's report and what only the loaded library knows.
type doctor struct {
	machine.Report
	TensorFlow string      `json:"tensorflow,omitempty"`
	Devices    []tf.Device `json:"devices,omitempty"`
}

func newLibDoctor() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Show the library, devices and CPU features of this machine, and what is missing",
		Long: `Doctor looks at this machine, loads the library and reports what it found. It
exits with status 1 if tfbert cannot run here.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := doctor{Report: machine.Diagnose(cmd.Context())}
			loadErr := report.load()
			if loadErr != nil && (len(report.Problems) == 0 || report.CheckGPU() != nil) {
				report.Problems = append(report.Problems, loadErr.Error())
			}
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), report); err != nil {
					return err
				}
			} else if err := report.print(cmd.OutOrStdout()); err != nil {
				return err
			}
			if loadErr != nil {
				return fmt.Errorf("TensorFlow cannot be used on this machine: see above")
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func (d *doctor) load() error {
	if err := d.CheckGPU(); err != nil { // before it takes the report along
		return err
	}
	if err := loadTensorFlow(); err != nil {
		return err
	}
	d.TensorFlow = tf.Version()
	g, err := tf.NewGraph()
	if err != nil {
		return err
	}
	defer g.Close()
	s, err := tf.NewSession(g, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	d.Devices, err = s.Devices()
	d.Devices = slices.DeleteFunc(d.Devices, func(v tf.Device) bool { return v.Type != "CPU" && v.Type != "GPU" })
	if err == nil {
		d.compareGPUs()
	}
	return err
}

// compareGPUs adds a problem if TensorFlow does not use the GPU that this machine has, and nothing so far tells why.
func (d *doctor) compareGPUs() {
	used := slices.ContainsFunc(d.Devices, func(v tf.Device) bool { return v.Type == "GPU" })
	if len(d.GPUs.Devices) > 0 && d.Library != nil && d.Library.GPU && !used && len(d.Problems) == 0 {
		d.Problems = append(d.Problems, "there is a GPU, but TensorFlow does not use it: --verbose shows its log")
	}
}

func (d *doctor) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("system", "%s/%s, glibc %s", d.OS, d.Arch, d.Glibc)
	row("memory", "%.1f GiB", float64(d.Memory)/(1<<30))
	row("cpu", "%s, %d usable", d.CPU.Model, d.CPU.Count)
	for _, f := range d.CPU.Features {
		present := "no"
		if f.Present {
			present = "yes"
		}
		row("", "%s\t%s\t%s", f.Name, present, f.Use)
	}
	switch {
	case d.GPUs.Unused != "":
		row("gpu", "none: %s", d.GPUs.Unused)
	case d.GPUs.Driver == "" && len(d.GPUs.Devices) == 0:
		row("gpu", "none")
	default:
		row("gpu driver", "%s", d.GPUs.Driver)
		for _, g := range d.GPUs.Devices {
			row("gpu", "%s, compute capability %s, %s", g.Name, g.ComputeCapability, g.Memory)
		}
	}
	if l := d.Library; l != nil {
		build := "CPU build"
		if l.GPU {
			build = "GPU build"
		}
		row("library", "%s", l.Path)
		row("", "%s, from %s", build, l.Source)
	} else {
		row("library", "none")
	}
	if d.TensorFlow != "" {
		row("tensorflow", "%s", d.TensorFlow)
	}
	for _, v := range d.Devices {
		row("device", "%s", v.Name)
	}
	for _, p := range d.Problems {
		row("problem", "%s", p)
	}
	if len(d.Problems) == 0 {
		row("problems", "none")
	}
	return w.Flush()
}
