package serve

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// modelConfig returns a model of a configuration, with versions and labels such as "stable:1".
func modelConfig(name, base string, versions []int64, labels ...string) *pb.ServedModelConfig {
	c := &pb.ServedModelConfig{
		Name: name, BasePath: base, ModelPlatform: "tensorflow", VersionLabels: map[string]int64{},
		ModelVersionPolicy: &pb.FileSystemStoragePathSourceConfig_ServableVersionPolicy{
			PolicyChoice: &pb.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific_{
				Specific: &pb.FileSystemStoragePathSourceConfig_ServableVersionPolicy_Specific{Versions: versions},
			},
		},
	}
	for _, l := range labels {
		name, text, _ := strings.Cut(l, ":")
		var version int64
		_, _ = fmt.Sscan(text, &version)
		c.VersionLabels[name] = version
	}
	return c
}

func reload(models ...*pb.ServedModelConfig) *pb.ReloadConfigRequest {
	return &pb.ReloadConfigRequest{MetricNames: []string{":tensorflow/x"}, Config: &pb.ModelServerConfig{
		Config: &pb.ModelServerConfig_ModelConfigList{ModelConfigList: &pb.ModelConfigList{Config: models}},
	}}
}

const twoVersions = `model_config_list {
	config {
		name: 'bert', base_path: 'bert', model_platform: 'tensorflow'
		model_version_policy { specific { versions: 1 versions: 2 } }
		version_labels { key: 'stable' value: 1 }
		version_labels { key: 'canary' value: 2 }
	}
	config { name: "other" base_path: "ROOT/plain" }
}`

// newLabelled returns a server of the models of twoVersions. Of "other" the folder of the version is the SavedModel.
func newLabelled(t *testing.T, control repository.Control) *fixture {
	t.Helper()
	s := &setup{repo: repository.Options{Control: control, PollInterval: 5 * time.Millisecond}}
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "plain", "7"), 0o755))
	s.config = strings.Replace(twoVersions, "ROOT", root, 1)
	s.more = func(f *fixture) { f.addVersion(t, "bert", 2) }
	return startServer(t, s)
}

// versionOf asks for a label over REST and returns the version that answered.
func versionOf(t *testing.T, f *fixture, label string) string {
	t.Helper()
	w := f.ask("GET", "/v1/models/bert/labels/"+label+"/metadata", nil)
	if w.Code != 200 {
		return w.Body.String()
	}
	_, after, _ := strings.Cut(w.Body.String(), `"version":"`)
	version, _, _ := strings.Cut(after, `"`)
	return version
}

// A label leads to its version in every verb of both protocols, and moves without a load.
func TestLabels(t *testing.T) {
	f := newLabelled(t, repository.ControlExplicit)
	conn := f.dial(t)
	predict, models := pb.NewPredictionClient(conn), pb.NewModelClient(conn)
	spec := func(name, label string) *pb.ModelSpec {
		return &pb.ModelSpec{Name: name, VersionChoice: &pb.ModelSpec_VersionLabel{VersionLabel: label}}
	}
	assert.Equal(t, "1", versionOf(t, f, "stable"))
	assert.Equal(t, "2", versionOf(t, f, "canary"))
	assert.Equal(t, 200, f.ask("POST", "/v1/models/bert/labels/stable:predict", []byte(predictRows)).Code)
	w := f.ask("POST", "/v1/models/bert_qa/labels/canary:predict",
		[]byte(`{"instances":[{"QUESTION":"find w1","CONTEXT":"a w1"}]}`))
	assert.Contains(t, w.Body.String(), `"ANSWER":"w1"`)
	status, err := models.GetModelStatus(t.Context(), &pb.GetModelStatusRequest{ModelSpec: spec("bert", "canary")})
	require.NoError(t, err)
	require.Len(t, status.GetModelVersionStatus(), 1)
	assert.EqualValues(t, 2, status.GetModelVersionStatus()[0].GetVersion())
	about, err := predict.GetModelMetadata(t.Context(), &pb.GetModelMetadataRequest{
		ModelSpec: spec("bert", "stable"), MetadataField: []string{"signature_def"},
	})
	require.NoError(t, err)
	assert.EqualValues(t, 1, about.GetModelSpec().GetVersion().GetValue())
	assert.Equal(t, 200, f.ask("GET", "/v1/models/other/versions/7", nil).Code)

	for _, name := range []string{"bert", "other"} {
		_, err = predict.Predict(t.Context(), &pb.PredictRequest{ModelSpec: spec(name, "none")})
		requireCode(t, codes.InvalidArgument, "Unrecognized servable version label: none", err)
	}
	_, err = predict.Predict(t.Context(), &pb.PredictRequest{ModelSpec: spec("nobody", "stable")})
	requireCode(t, codes.NotFound, "Servable not found", err)

	loads := f.models.Loads.Load()
	base := filepath.Join(f.root, "bert")
	r, err := models.HandleReloadConfigRequest(t.Context(),
		reload(modelConfig("bert", base, []int64{1, 2}, "stable:2", "canary:2")))
	require.NoError(t, err)
	assert.Zero(t, r.GetStatus().GetErrorCode())
	assert.Equal(t, ":tensorflow/x", r.GetMetric()[0].GetName())
	assert.Equal(t, "2", versionOf(t, f, "stable"))
	assert.Equal(t, loads, f.models.Loads.Load(), "no load")
	assert.Contains(t, f.ask("GET", "/v1/models/other", nil).Body.String(), `"state":"END"`)
}

// A configuration that cannot be served in full takes nothing away from what is served.
func TestReloadConfig(t *testing.T) {
	f := newLabelled(t, repository.ControlExplicit)
	models := pb.NewModelClient(f.dial(t))
	base := filepath.Join(f.root, "bert")
	for _, tt := range []struct {
		request *pb.ReloadConfigRequest
		code    codes.Code
		message string
	}{
		{&pb.ReloadConfigRequest{}, codes.InvalidArgument, "does not have a model_config_list"},
		{reload(modelConfig("bert", base, []int64{1}, "stable:2")), codes.Internal,
			`the label "stable" is of version 2, which is not served`},
		{reload(modelConfig("bert", base, []int64{1, 2}, "stable:3")), codes.FailedPrecondition,
			`the label "stable" is of version 3, which is not served`},
		{reload(modelConfig("bert", base, []int64{9})), codes.Internal, "it has no version to serve"},
		{reload(modelConfig("bert", "", nil)), codes.InvalidArgument, "does not have a base_path"},
		{reload(modelConfig("bert", "gs://x/y", nil)), codes.InvalidArgument, "is not a folder of this machine"},
		{reload(modelConfig("bert", "/etc", nil)), codes.PermissionDenied, "not beside those of the server's"},
		{reload(modelConfig("bert", base+"/../../x", nil)), codes.PermissionDenied, "not beside those"},
		{reload(modelConfig("bert", base+"/1", nil)), codes.PermissionDenied, "not beside those"},
		{reload(modelConfig("../x", base, nil)), codes.InvalidArgument, "is not a valid name"},
		{reload(modelConfig("a", base, nil), modelConfig("a", base, nil)), codes.InvalidArgument, "is named twice"},
		{reload(&pb.ServedModelConfig{Name: "a", BasePath: base, ModelPlatform: "xgboost"}), codes.InvalidArgument,
			"not for the platform tensorflow"},
		{reload(&pb.ServedModelConfig{Name: "a", BasePath: base, LoggingConfig: &pb.LoggingConfig{}}),
			codes.InvalidArgument, "logging_config"},
	} {
		_, err := models.HandleReloadConfigRequest(t.Context(), tt.request)
		requireCode(t, tt.code, tt.message, err)
		assert.Equal(t, "1", versionOf(t, f, "stable"), tt.message)
		assert.Equal(t, "2", versionOf(t, f, "canary"), tt.message)
		assert.Equal(t, 200, f.ask("GET", "/v1/models/other/metadata", nil).Code, tt.message)
	}
	// What was refused can be asked for again.
	_, err := models.HandleReloadConfigRequest(t.Context(), reload(modelConfig("bert", base, []int64{2}, "stable:2")))
	require.NoError(t, err)
	assert.Equal(t, "2", versionOf(t, f, "stable"))

	f = newLabelled(t, repository.ControlNone)
	_, err = pb.NewModelClient(f.dial(t)).HandleReloadConfigRequest(t.Context(), reload(modelConfig("bert", base, nil)))
	requireCode(t, codes.FailedPrecondition, "control mode is not explicit", err)

	f = startServer(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	_, err = pb.NewModelClient(f.dial(t)).HandleReloadConfigRequest(t.Context(), reload(modelConfig("bert", base, nil)))
	requireCode(t, codes.FailedPrecondition, "does not serve the models of a configuration file", err)

	f = startServer(t, &setup{serve: Options{AdminToken: "x"}})
	_, err = pb.NewModelClient(f.dial(t)).HandleReloadConfigRequest(t.Context(), reload())
	requireCode(t, codes.Unauthenticated, "admin token", err)
}

// With polling the file itself is followed.
func TestConfigFilePoll(t *testing.T) {
	f := newLabelled(t, repository.ControlPoll)
	f.writeConfig(t, strings.Replace(twoVersions[:strings.Index(twoVersions, "config { name: \"other\"")]+"}",
		"key: 'stable' value: 1", "key: 'stable' value: 2", 1))
	eventually(t, "the label moves", func() bool { return versionOf(t, f, "stable") == "2" })
	eventually(t, "the other model goes", func() bool { return f.ask("GET", "/v1/models/other/metadata", nil).Code != 200 })
	f.writeConfig(t, "model_config_list { conf")
	eventually(t, "a bad file is logged", func() bool {
		return strings.Contains(f.log.String(), "not a model server configuration")
	})
	assert.Equal(t, "2", versionOf(t, f, "stable"))
}

// A file that cannot be read says where and why.
func TestBadConfigFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "models.config")
	for text, want := range map[string]string{
		"model_config_list { config { nam: 'x' } }":                                   "unknown field: nam",
		"custom_model_config { }":                                                     "does not have a model_config_list",
		"model_config_list { config { name: 'x' base_path: 's3://x' } }":              "not a folder of this machine",
		"model_config_list { config { name: 'x' base_path: 'x' model_type: OTHER } }": "platform tensorflow",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := repository.OpenConfig(path, repository.Options{})
		require.ErrorContains(t, err, want)
		assert.Contains(t, err.Error(), "read "+path)
	}
	_, err := repository.OpenConfig(path+"x", repository.Options{})
	assert.ErrorIs(t, err, os.ErrNotExist)
}

// A request to load a model may bring its configuration, which holds until the next load.
func TestConfigOverride(t *testing.T) {
	f := startServer(t, &setup{repo: repository.Options{Control: repository.ControlExplicit}})
	c := pb.NewInferenceClient(f.dial(t))
	load := func(name, value string) error {
		_, err := c.RepositoryModelLoad(t.Context(), &pb.RepositoryModelLoadRequest{
			ModelName: "bert", Parameters: map[string]*pb.ModelRepositoryParameter{
				name: {ParameterChoice: &pb.ModelRepositoryParameter_StringParam{StringParam: value}},
			},
		})
		return err
	}
	batch := func() int32 {
		r, err := c.ModelConfig(t.Context(), &pb.ModelConfigRequest{Name: "bert"})
		require.NoError(t, err)
		return r.GetConfig().GetMaxBatchSize()
	}
	require.NoError(t, load("config",
		`{"max_batch_size":3,"dynamic_batching":{"preferred_batch_size":[2],"max_queue_delay_microseconds":"5"}}`))
	assert.EqualValues(t, 3, batch())
	body := `{"parameters":{"config":"{\"name\":\"bert\",\"max_batch_size\":5}"}}`
	require.Equal(t, 200, f.ask("POST", "/v2/repository/models/bert/load", []byte(body)).Code)
	assert.EqualValues(t, 5, batch())
	for _, tt := range []struct {
		name, value string
		code        codes.Code
		message     string
	}{
		{"config", "{", codes.InvalidArgument, "is not one of a model"},
		{"config", `{"max_bach_size":1}`, codes.InvalidArgument, "max_bach_size"},
		{"config", `{"name":"x"}`, codes.InvalidArgument, `is of model "x"`},
		{"config", `{"platform":"onnxruntime_onnx"}`, codes.InvalidArgument, "this server runs only"},
		{"config", `{"default_model_filename":"../x"}`, codes.InvalidArgument, "must be a name within"},
		{"config", `{"input":[{"name":"x"}]}`, codes.Internal, "that the model does not have"},
		{"file:1/model.savedmodel/saved_model.pb", "x", codes.Unimplemented, `the parameter "file:1/model.savedmodel`},
		{"unload_dependents", "x", codes.InvalidArgument, `unknown parameter "unload_dependents"`},
	} {
		requireCode(t, tt.code, tt.message, load(tt.name, tt.value))
		assert.EqualValues(t, 5, batch(), tt.message)
	}
	w := f.ask("POST", "/v2/repository/models/bert/load", []byte(`{"parameters":{"config":{}}}`))
	requireError(t, 400, "config must be a string", w)
	require.Equal(t, 200, f.ask("POST", "/v2/repository/models/bert/load", nil).Code)
	assert.EqualValues(t, 8, batch())
}
