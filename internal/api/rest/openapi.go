package rest

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/flash-sandbox/flash-sandbox/internal/api"
)

// parameter is a query parameter.
type parameter struct{ name, kind, about string }

// describe writes the OpenAPI 3.1 document of routes. huma makes the schemas
// from the very types that the handlers decode and encode; it is not asked to
// serve, as its decoding is stricter than clients in the field can live with.
func describe(routes []route, version string) []byte {
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	problem := &huma.Response{
		Description: "What went wrong.",
		Headers:     map[string]*huma.Param{api.RequestIDHeader: requestIDHeader()},
		Content:     map[string]*huma.MediaType{api.ProblemType: {Schema: schemaOf(schemas, api.Problem{})}},
	}
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Flash Sandbox", Version: version,
			Description: "Make sandboxes, run commands in them, save and restore them. Bodies are JSON whatever their Content-Type; " +
				"unknown members are ignored, null means not given, whole numbers may be written as 512.0.",
		},
		Servers:    []*huma.Server{{URL: "./", Description: "Wherever this document was found."}},
		Paths:      map[string]*huma.PathItem{},
		Components: &huma.Components{Schemas: schemas},
	}
	for _, rt := range routes {
		if rt.hidden {
			continue
		}
		success := &huma.Response{Description: http.StatusText(rt.status), Headers: map[string]*huma.Param{api.RequestIDHeader: requestIDHeader()}}
		if rt.out != nil {
			success.Content = map[string]*huma.MediaType{"application/json": {Schema: schemaOf(schemas, rt.out)}}
		}
		if rt.status == http.StatusCreated {
			success.Headers["Location"] = &huma.Param{Description: "Of the new resource, relative to the request.", Schema: &huma.Schema{Type: huma.TypeString}}
		}
		op := &huma.Operation{
			OperationID: rt.id, Method: rt.method, Path: rt.path, Summary: rt.summary,
			Responses: map[string]*huma.Response{strconv.Itoa(rt.status): success, "default": problem},
		}
		if rt.in != nil {
			op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{"application/json": {Schema: schemaOf(schemas, rt.in)}}}
			allOptional(schemas, rt.in)
		}
		if strings.Contains(rt.path, "{id}") {
			op.Parameters = append(op.Parameters, &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Pattern: "^[A-Za-z0-9][A-Za-z0-9_-]*$"}})
		}
		for _, q := range rt.query {
			op.Parameters = append(op.Parameters, &huma.Param{Name: q.name, In: "query", Description: q.about, Schema: &huma.Schema{Type: q.kind}})
		}
		doc.AddOperation(op)
	}
	for _, s := range schemas.Map() {
		loosen(s)
	}
	b, err := json.Marshal(doc)
	if err != nil {
		panic("rest: the description can't be written: " + err.Error()) // our own types; the tests write it
	}
	return b
}

func requestIDHeader() *huma.Param {
	return &huma.Param{Description: "Names the request in the daemon's log.", Schema: &huma.Schema{Type: huma.TypeString}}
}

func schemaOf(r huma.Registry, v any) *huma.Schema {
	return r.Schema(reflect.TypeOf(v), true, "")
}

// allOptional drops what huma takes for required: no member of a request is.
func allOptional(r huma.Registry, v any) {
	r.Schema(reflect.TypeOf(v), false, "").Required = nil
}

// loosen states what holds for every body: objects may have more members than
// are described, and lists are never null.
func loosen(s *huma.Schema) {
	if s == nil {
		return
	}
	if s.Type == huma.TypeObject && s.AdditionalProperties == false {
		s.AdditionalProperties = true
	}
	if s.Type == huma.TypeArray {
		s.Nullable = false
		loosen(s.Items)
	}
	for _, p := range s.Properties {
		loosen(p)
	}
}
