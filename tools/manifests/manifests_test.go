// Package manifests holds the manifests of Kubernetes in deploy/ to the types of its API: a field that does not exist,
// or has the wrong type, is an error, as in the API server's strict validation.
package manifests

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// read returns the objects of all manifests.
func read(t *testing.T) (deployments []apps.Deployment, services []core.Service, budgets []policy.PodDisruptionBudget) {
	t.Helper()
	files, err := filepath.Glob("../../deploy/kubernetes/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			var kind meta.TypeMeta
			require.NoError(t, yaml.Unmarshal(document, &kind), file)
			switch kind.APIVersion + " " + kind.Kind {
			case "apps/v1 Deployment":
				deployments = append(deployments, decode[apps.Deployment](t, file, document))
			case "v1 Service":
				services = append(services, decode[core.Service](t, file, document))
			case "policy/v1 PodDisruptionBudget":
				budgets = append(budgets, decode[policy.PodDisruptionBudget](t, file, document))
			default:
				t.Errorf("%s: nothing checks a %s of %s", file, kind.Kind, kind.APIVersion)
			}
		}
	}
	return deployments, services, budgets
}

func decode[T any](t *testing.T, file string, document []byte) (object T) {
	t.Helper()
	require.NoError(t, yaml.UnmarshalStrict(document, &object), file)
	return object
}

func TestManifests(t *testing.T) {
	deployments, services, budgets := read(t)
	require.Len(t, deployments, 1)
	d := deployments[0]
	pod := d.Spec.Template.Spec
	labels := d.Spec.Template.Labels
	assert.Equal(t, d.Spec.Selector.MatchLabels, labels, "the deployment finds its pods")
	assert.Empty(t, validation.IsDNS1123Label(d.Name))
	require.Len(t, pod.Containers, 1)
	c := pod.Containers[0]

	// Probes reach ports that there are, and ask what they mean.
	for name, probe := range map[string]*core.Probe{
		"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe,
	} {
		require.NotNil(t, probe, name)
		assert.True(t, hasPort(c, probe.HTTPGet.Port), name)
	}
	assert.Equal(t, "/v2/health/ready", c.ReadinessProbe.HTTPGet.Path)
	assert.Equal(t, "/v2/health/live", c.LivenessProbe.HTTPGet.Path, "a server that loads a model is not restarted")

	// A pod that ends has the time to drain.
	i := slices.IndexFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--drain_timeout=") })
	require.GreaterOrEqual(t, i, 0)
	drain, err := time.ParseDuration(strings.TrimPrefix(c.Args[i], "--drain_timeout="))
	require.NoError(t, err)
	wait, err := time.ParseDuration(c.Lifecycle.PreStop.Exec.Command[1] + "s")
	require.NoError(t, err)
	assert.Greater(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, drain+wait)

	// It runs with few rights and with limits.
	assert.True(t, *pod.SecurityContext.RunAsNonRoot)
	assert.True(t, *c.SecurityContext.ReadOnlyRootFilesystem)
	assert.False(t, *c.SecurityContext.AllowPrivilegeEscalation)
	assert.Equal(t, []core.Capability{"ALL"}, c.SecurityContext.Capabilities.Drop)
	assert.False(t, c.Resources.Limits.Memory().IsZero())
	assert.False(t, c.Resources.Requests.Cpu().IsZero())
	for _, mount := range c.VolumeMounts {
		assert.True(t, slices.ContainsFunc(pod.Volumes, func(v core.Volume) bool { return v.Name == mount.Name }), mount.Name)
	}

	require.Len(t, services, 1)
	assert.Equal(t, labels, services[0].Spec.Selector)
	for _, port := range services[0].Spec.Ports {
		assert.True(t, hasPort(c, port.TargetPort), port.Name)
	}
	require.Len(t, budgets, 1)
	assert.Equal(t, labels, budgets[0].Spec.Selector.MatchLabels)
	assert.Greater(t, *d.Spec.Replicas, int32(budgets[0].Spec.MaxUnavailable.IntValue()))
}

func hasPort(c core.Container, port intstr.IntOrString) bool {
	return slices.ContainsFunc(c.Ports, func(p core.ContainerPort) bool {
		return p.Name == port.StrVal || p.ContainerPort == port.IntVal
	})
}
