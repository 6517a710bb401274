package oip

import (
	"context"
	"maps"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// TraceSetting changes the settings of traces, if the request has any, and returns them.
func (s *Service) TraceSetting(ctx context.Context, r *pb.TraceSettingRequest) (*pb.TraceSettingResponse, error) {
	if name := r.GetModelName(); name != "" {
		if err := s.modelReady(name, ""); err != nil {
			return nil, err
		}
		if len(r.GetSettings()) > 0 {
			return nil, repository.Errorf(codes.Unimplemented,
				"a model does not have trace settings of its own: set those of the server")
		}
	}
	if len(r.GetSettings()) > 0 {
		if err := s.admin(ctx); err != nil {
			return nil, err
		}
		settings := map[string][]string{}
		for name, value := range r.GetSettings() {
			settings[name] = value.GetValue()
		}
		if err := s.host.Tracing.Set(settings); err != nil {
			return nil, err
		}
	}
	response := &pb.TraceSettingResponse{Settings: map[string]*pb.TraceSettingResponse_SettingValue{}}
	for name, values := range s.host.Tracing.Settings() {
		response.Settings[name] = &pb.TraceSettingResponse_SettingValue{Value: values}
	}
	return response, nil
}

// LogSettings changes the settings of the log, if the request has any, and returns them.
func (s *Service) LogSettings(ctx context.Context, r *pb.LogSettingsRequest) (*pb.LogSettingsResponse, error) {
	if len(r.GetSettings()) > 0 {
		if err := s.admin(ctx); err != nil {
			return nil, err
		}
		settings := s.host.LogSettings()
		for _, name := range slices.Sorted(maps.Keys(r.GetSettings())) {
			if err := setLog(&settings, name, r.GetSettings()[name]); err != nil {
				return nil, err
			}
		}
		if err := s.host.SetLog(settings); err != nil {
			return nil, err
		}
	}
	settings := s.host.LogSettings()
	type value = pb.LogSettingsResponse_SettingValue
	is := func(b bool) *value {
		return &value{ParameterChoice: &pb.LogSettingsResponse_SettingValue_BoolParam{BoolParam: b}}
	}
	text := func(t string) *value {
		return &value{ParameterChoice: &pb.LogSettingsResponse_SettingValue_StringParam{StringParam: t}}
	}
	return &pb.LogSettingsResponse{Settings: map[string]*value{
		"log_file": text(""), "log_info": is(settings.Info), "log_warning": is(settings.Warning),
		"log_error": is(settings.Error), "log_format": text(logFormat),
		"log_verbose_level": {
			ParameterChoice: &pb.LogSettingsResponse_SettingValue_Uint32Param{Uint32Param: settings.Verbose},
		},
	}}, nil
}

const logFormat = "default" // Triton's name of the only one that a server has

// setLog sets one of the settings of the log.
func setLog(s *transport.LogSettings, name string, v *pb.LogSettingsRequest_SettingValue) error {
	flag, isFlag := v.GetParameterChoice().(*pb.LogSettingsRequest_SettingValue_BoolParam)
	number, isNumber := v.GetParameterChoice().(*pb.LogSettingsRequest_SettingValue_Uint32Param)
	flags := map[string]*bool{"log_info": &s.Info, "log_warning": &s.Warning, "log_error": &s.Error}
	switch to := flags[name]; {
	case v.GetParameterChoice() == nil: // it stays
	case to != nil && isFlag:
		*to = flag.BoolParam
	case to != nil:
		return repository.Invalidf("%s must be true or false", name)
	case name == "log_verbose_level" && isNumber:
		s.Verbose = number.Uint32Param
	case name == "log_verbose_level":
		return repository.Invalidf("log_verbose_level must be a whole number from 0 on")
	case name == "log_file" && v.GetStringParam() != "":
		return repository.Errorf(codes.Unimplemented, "log_file is not followed: the log goes where the server's does")
	case name == "log_format" && v.GetStringParam() != logFormat:
		return repository.Errorf(codes.Unimplemented, "log_format is not followed: it is set when the server starts")
	case name != "log_file" && name != "log_format":
		return repository.Invalidf("unknown log setting %.100q", name)
	}
	return nil
}

// handleSettings adds the verbs over HTTP.
func (s *Service) handleSettings(handle transport.Handle) {
	for _, base := range []string{
		"/v2/trace/setting", "/v2/models/{model}/trace/setting", "/v2/models/{model}/versions/{version}/trace/setting",
	} {
		handle("GET "+base, s.traceSetting)
		handle("POST "+base, s.traceSetting)
	}
	handle("GET /v2/logging", s.logging)
	handle("POST /v2/logging", s.logging)
}

// settings reads the settings of a request. Only an administrator may have any.
func (s *Service) settings(r *http.Request) (map[string]jsontext.Value, error) {
	if r.Method != http.MethodPost {
		return nil, nil
	}
	if err := s.host.Admin(r.Header.Get("Authorization")); err != nil { // before the body is read
		return nil, err
	}
	var settings map[string]jsontext.Value
	err := s.readOptional(r, &settings)
	return settings, err
}

func (s *Service) traceSetting(w http.ResponseWriter, r *http.Request) error {
	settings, err := s.settings(r)
	if err != nil {
		return err
	}
	request := &pb.TraceSettingRequest{
		ModelName: r.PathValue("model"), Settings: map[string]*pb.TraceSettingRequest_SettingValue{},
	}
	for name, value := range settings {
		v := &pb.TraceSettingRequest_SettingValue{}
		switch value.Kind() {
		case 'n': // the default
		case '[':
			var list transport.Bounded[string]
			if err := transport.DecodeJSON(value, &list); err != nil {
				return repository.Invalidf("%.100s must be a string or an array of strings", name)
			}
			v.Value = list
		case '"':
			text, _ := jsontext.AppendUnquote(nil, value)
			v.Value = []string{string(text)}
		default: // a number, which Triton has as a string
			v.Value = []string{string(value)}
		}
		request.Settings[name] = v
	}
	response, err := s.TraceSetting(incoming(r), request)
	if err != nil {
		return err
	}
	all := map[string]any{} // over HTTP only the level is an array
	for name, value := range response.GetSettings() {
		if all[name] = value.GetValue(); name != "trace_level" {
			all[name] = value.GetValue()[0]
		}
	}
	return transport.WriteJSON(w, all)
}

func (s *Service) logging(w http.ResponseWriter, r *http.Request) error {
	settings, err := s.settings(r)
	if err != nil {
		return err
	}
	request := &pb.LogSettingsRequest{Settings: map[string]*pb.LogSettingsRequest_SettingValue{}}
	for name, value := range settings {
		v := &pb.LogSettingsRequest_SettingValue{}
		switch value.Kind() {
		case 't', 'f':
			v.ParameterChoice = &pb.LogSettingsRequest_SettingValue_BoolParam{BoolParam: value.Kind() == 't'}
		case '"':
			text, _ := jsontext.AppendUnquote(nil, value)
			v.ParameterChoice = &pb.LogSettingsRequest_SettingValue_StringParam{StringParam: string(text)}
		case '0':
			var n uint32
			if err := transport.DecodeJSON(value, &n); err != nil {
				return repository.Invalidf("%.100s must be a whole number from 0 on", name)
			}
			v.ParameterChoice = &pb.LogSettingsRequest_SettingValue_Uint32Param{Uint32Param: n}
		case 'n':
		default:
			return repository.Invalidf("%.100s must be a string, a number, true or false", name)
		}
		request.Settings[name] = v
	}
	response, err := s.LogSettings(incoming(r), request)
	if err != nil {
		return err
	}
	all := map[string]any{}
	for name, v := range response.GetSettings() {
		switch x := v.GetParameterChoice().(type) {
		case *pb.LogSettingsResponse_SettingValue_BoolParam:
			all[name] = x.BoolParam
		case *pb.LogSettingsResponse_SettingValue_Uint32Param:
			all[name] = x.Uint32Param
		case *pb.LogSettingsResponse_SettingValue_StringParam:
			all[name] = x.StringParam
		}
	}
	return transport.WriteJSON(w, all)
}
