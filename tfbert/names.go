package tfbert

import (
	"regexp"
	"strings"
)

// A checkpoint's variables have the names of whoever wrote the model: modeling.py's, or those of its ports. The
// names below say how each part of a BERT is called, below the scope that the model stands in.
//
//   - modeling.py, NVIDIA's scripts and conversions from PyTorch: bert/encoder/layer_0/attention/self/query/kernel
//   - tf-models and NVIDIA's TensorFlow2 BERT: transformer/layer_0/self_attention/query/kernel
//   - their first version: bert_model/encoder/layer_0/self_attention/query/kernel
//   - Hugging Face's TensorFlow classes: bert/encoder/layer_._0/attention/self/query/kernel
const (
	layerPart = `(?:encoder|transformer)/layer(?:_\._|\._|_|/)(\d+)/`
	normPart  = `(?:LayerNorm|layer_norm|layer_normalization|Layer_?[Nn]orm)(?:_\d+)?/(gamma|beta)`
	densePart = `/(kernel|bias)`
)

// namePatterns match a name at its end. A part in parentheses is left as it is in modeling.py's name, where it
// stands as $1, $2 and so on.
var namePatterns = compile([][2]string{
	{`(?:embeddings/word_embeddings(?:/weight|/embeddings)?|word_embeddings/embeddings)`, "embeddings/word_embeddings"},
	{`(?:embeddings/token_type_embeddings(?:/weight|/embeddings)?|embedding_postprocessor/type_embeddings|` +
		`type_embeddings/embeddings)`, "embeddings/token_type_embeddings"},
	{`(?:embeddings/position_embeddings(?:/weight|/embeddings)?|embedding_postprocessor/position_embeddings|` +
		`position_embeddings?/(?:position_)?embeddings)`, "embeddings/position_embeddings"},
	{`(?:embeddings|embedding_postprocessor)/` + normPart, "embeddings/LayerNorm/$1"},
	{layerPart + `(?:attention/self|attention/self_attention|self_attention)/(query|key|value)` + densePart,
		"encoder/layer_$1/attention/self/$2/$3"},
	{layerPart + `(?:attention/output/dense|attention/dense_output/dense|self_attention/attention_output|` +
		`self_attention_output)` + densePart, "encoder/layer_$1/attention/output/dense/$2"},
	{layerPart + `attention/(?:dense_)?output/` + normPart, "encoder/layer_$1/attention/output/LayerNorm/$2"},
	{layerPart + `self_attention_layer_norm/(gamma|beta)`, "encoder/layer_$1/attention/output/LayerNorm/$2"},
	{layerPart + `intermediate(?:/dense)?` + densePart, "encoder/layer_$1/intermediate/dense/$2"},
	{layerPart + `(?:output/dense|bert_output/dense|output)` + densePart, "encoder/layer_$1/output/dense/$2"},
	{layerPart + `(?:output|bert_output)/` + normPart, "encoder/layer_$1/output/LayerNorm/$2"},
	{layerPart + `output_layer_norm/(gamma|beta)`, "encoder/layer_$1/output/LayerNorm/$2"},
	{`(?:pooler/dense|pooler_transform)` + densePart, "pooler/dense/$1"},
})

type namePattern struct {
	match *regexp.Regexp
	name  string
}

func compile(patterns [][2]string) []namePattern {
	compiled := make([]namePattern, len(patterns))
	for i, p := range patterns {
		// The scope before and the state of a weight behind are not part of the name.
		compiled[i] = namePattern{regexp.MustCompile(`^(?:(?P<scope>.*?)/)??` + p[0] + `(?P<state>/.*)?$`), p[1]}
	}
	return compiled
}

// A part is what a variable is in a BERT.
type part struct {
	scope string // that the model stands in; "bert" in modeling.py
	name  string // below the scope, as modeling.py has it; "" if the variable is no part that we know
	state string // "" for the weight itself; otherwise what the name has behind that of the weight
}

// parsePart returns what a variable is by its name.
func parsePart(variable string) part {
	for _, p := range namePatterns {
		m := p.match.FindStringSubmatchIndex(variable)
		if m == nil {
			continue
		}
		group := func(name string) string {
			if i := 2 * p.match.SubexpIndex(name); m[i] >= 0 {
				return variable[m[i]:m[i+1]]
			}
			return ""
		}
		// The scope is the first group of the pattern, so that $1 of a name is the second.
		return part{
			scope: group("scope"),
			name:  string(p.match.ExpandString(nil, shiftGroups(p.name), variable, m)),
			state: strings.TrimPrefix(group("state"), "/"),
		}
	}
	return part{}
}

// shiftGroups counts the groups of a name from 2 on.
func shiftGroups(name string) string {
	return strings.NewReplacer("$1", "${2}", "$2", "${3}", "$3", "${4}").Replace(name)
}

// layerOf is the name of a part of a layer, with the number of the layer.
var layerOf = regexp.MustCompile(layerPart)
