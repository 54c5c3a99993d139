package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"

	"tulle/subnet"
	"tulle/subnet/flannel"
)

// DecodeOptions decodes the Backend object of a network configuration into the struct at opts, whose fields are the
// options that the backend knows; a field that is absent keeps its value. Names are matched in any case. An option
// that the backend does not know becomes a warning, one with an unusable value an error that names it.
func DecodeOptions(b subnet.Backend, opts any) (warnings []string, err error) {
	if len(b.Options) == 0 {
		return nil, nil
	}
	known := []string{"Type"}
	for _, f := range reflect.VisibleFields(reflect.TypeOf(opts).Elem()) {
		known = append(known, f.Name)
	}
	if err := json.Unmarshal(b.Options, opts); err != nil {
		var typeErr *json.UnmarshalTypeError
		if errors.As(err, &typeErr) {
			return nil, fmt.Errorf("option Backend.%s does not take a %.64s: want %s", typeErr.Field, typeErr.Value, describe(typeErr.Type))
		}
		return nil, fmt.Errorf("decode Backend: %w", err)
	}
	for _, warning := range flannel.UnknownFields(b.Options, known...) {
		warnings = append(warnings, "Backend: "+warning)
	}
	return warnings, nil
}

// describe says what values a type has.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Uint16:
		return "a number from 0 to 65535"
	case reflect.Int, reflect.Uint32:
		return "a number without quotes"
	}
	return "a " + t.String()
}
