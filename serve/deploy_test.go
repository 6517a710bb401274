package serve

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/serve/repository"
)

// A dashboard is Grafana's, as far as the tests read it.
type dashboard struct {
	UID        string  `json:"uid"`
	Panels     []panel `json:"panels"`
	Templating struct {
		List []struct{ Name, Type, Definition string } `json:"list"`
	} `json:"templating"`
}

type panel struct {
	ID                       int
	Type, Title, Description string
	GridPos                  struct{ X, Y, W, H int }
	Targets                  []struct{ Expr, LegendFormat, RefID string }
}

func readDashboard(t *testing.T) dashboard {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "deploy", "grafana.json"))
	require.NoError(t, err)
	var d dashboard
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// A ruleFile is Prometheus's.
type ruleFile struct {
	Groups []ruleGroup `yaml:"groups"`
}

type ruleGroup struct {
	Name  string `yaml:"name"`
	Rules []rule `yaml:"rules"`
}

type rule struct {
	Record string `yaml:"record,omitempty"`
	Alert  string `yaml:"alert,omitempty"`
	Expr   string `yaml:"expr"`
}

func alertExpressions(t *testing.T) map[string]string {
	text, err := os.ReadFile(filepath.Join(testenv.Root(t), "deploy", "alerts.yml"))
	require.NoError(t, err)
	var file ruleFile
	require.NoError(t, yaml.Unmarshal(text, &file))
	all := map[string]string{}
	for _, r := range file.Groups[0].Rules {
		all[r.Alert] = r.Expr
	}
	return all
}

// Parts of PromQL.
var (
	quoted   = regexp.MustCompile(`"[^"]*"`)
	grouping = regexp.MustCompile(`\b(by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)`)
	matchers = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)?\{([^}]*)\}`)
	ranges   = regexp.MustCompile(`\[[^]]*\]`)
	word     = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?`)
	label    = regexp.MustCompile(`[a-zA-Z_][a-zA-Z0-9_]*`)
)

// metricsOf returns the names of the metrics in an expression of PromQL, and the labels that it asks of each of them
// and of all.
func metricsOf(expr string) (names []string, labels map[string][]string, all []string) {
	labels = map[string][]string{}
	expr = quoted.ReplaceAllString(expr, "")
	for _, m := range grouping.FindAllStringSubmatch(expr, -1) {
		all = append(all, label.FindAllString(m[2], -1)...)
	}
	expr = grouping.ReplaceAllString(expr, " ")
	for _, m := range matchers.FindAllStringSubmatch(expr, -1) {
		labels[m[1]] = append(labels[m[1]], label.FindAllString(m[2], -1)...)
	}
	expr = matchers.ReplaceAllString(ranges.ReplaceAllString(expr, ""), "$1 ")
	for _, w := range word.FindAllString(expr, -1) {
		name := strings.TrimSpace(w)
		if operator := name == "and" || name == "or" || name == "unless"; !operator && !strings.HasSuffix(name, "(") {
			names = append(names, name)
		}
	}
	return names, labels, all
}

// The dashboard and the alerts ask only metrics that a server has, by labels that these have.
func TestDeployedMetrics(t *testing.T) {
	f := newFixture(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	require.Equal(t, 200, f.ask("POST", "/v1/answer", []byte(question(1))).Code)
	failing := `{"question":"find w1","context":"` + fakemodel.Fail + `"}`
	require.Equal(t, 500, f.ask("POST", "/v1/answer", []byte(failing)).Code)
	f.questions.Most = 0
	require.Equal(t, 429, f.ask("POST", "/v1/answer", []byte(question(1))).Code)

	has := map[string]map[string]bool{} // labels by the names of samples
	for name, family := range f.figures(t) {
		names := []string{name}
		labels := map[string]bool{"job": true, "instance": true} // which Prometheus adds
		for _, m := range family.Metric {
			for _, l := range m.Label {
				labels[l.GetName()] = true
			}
			if m.Histogram != nil {
				names = []string{name + "_bucket", name + "_sum", name + "_count"}
			}
		}
		for _, n := range names {
			has[n] = maps.Clone(labels)
			if strings.HasSuffix(n, "_bucket") {
				has[n]["le"] = true
			}
		}
	}
	check := func(what, expr string) {
		names, labels, all := metricsOf(expr)
		assert.NotEmpty(t, names, what)
		for _, name := range names {
			if !assert.Contains(t, has, name, what) {
				continue
			}
			for _, l := range append(labels[name], all...) {
				assert.True(t, has[name][l], "%s: %s does not have the label %s", what, name, l)
			}
		}
	}
	d := readDashboard(t)
	ids := map[int]bool{}
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], "panel %d is there twice", p.ID)
		ids[p.ID] = true
		assert.LessOrEqual(t, p.GridPos.X+p.GridPos.W, 24, p.Title)
		assert.Equal(t, p.Type == "row", p.Description == "", p.Title)
		for _, target := range p.Targets {
			check(p.Title, target.Expr)
		}
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" {
			inner := strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")")
			at := strings.LastIndex(inner, ",")
			check(v.Name, "sum by ("+inner[at+1:]+") ("+inner[:at]+")")
		}
	}
	alerts := alertExpressions(t)
	assert.Len(t, alerts, 11)
	for name, expr := range alerts {
		check(name, expr)
	}
}

func TestMetricsOf(t *testing.T) {
	names, labels, all := metricsOf(
		`histogram_quantile(0.9, sum by (le, model) (rate(a_bucket{x=~"b{c}", y!=""}[5m]))) / c > 0.5 and on (job) d`)
	assert.Equal(t, []string{"a_bucket", "c", "d"}, names)
	assert.Equal(t, map[string][]string{"a_bucket": {"x", "y"}}, labels)
	assert.Equal(t, []string{"le", "model", "job"}, all)
}

// Prometheus's own tool takes the alerts, their tests and the queries of the dashboard.
func TestPromtool(t *testing.T) {
	promtool := testenv.Promtool(t)
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), promtool, args...)
		cmd.Dir = filepath.Join(testenv.Root(t), "deploy")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "promtool %v: %s", args, out)
	}
	run("check", "rules", "--lint-fatal", "alerts.yml")
	run("test", "rules", "alerts_test.yml")

	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$model", ".*")
	group := ruleGroup{Name: "dashboard"}
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			group.Rules = append(group.Rules, rule{
				Record: fmt.Sprintf("panel:%d:%s", p.ID, target.RefID), Expr: variables.Replace(target.Expr),
			})
		}
	}
	text, err := yaml.Marshal(ruleFile{[]ruleGroup{group}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "dashboard.yml")
	require.NoError(t, os.WriteFile(file, text, 0o666))
	run("check", "rules", "--lint-fatal", file)
}
