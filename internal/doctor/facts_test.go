package doctor

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
)

// filled sets every field below v, so that one that JSON loses is seen.
func filled(v reflect.Value) {
	switch {
	case v.Type() == reflect.TypeFor[netip.Addr]():
		v.Set(reflect.ValueOf(netip.MustParseAddr("10.5.1.2")))
	case v.Type() == reflect.TypeFor[netip.Prefix]():
		v.Set(reflect.ValueOf(netip.MustParsePrefix("10.5.1.0/24")))
	case v.Type().PkgPath() == "time": // a time of its own making would differ in what is not told
	default:
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range v.Fields() {
				filled(field)
			}
		case reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
			filled(v.Elem())
		case reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			filled(v.Index(0))
		case reflect.Map:
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			filled(key)
			filled(value)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(key, value)
		case reflect.String:
			v.SetString("text")
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(7)
		case reflect.Uint16, reflect.Uint32, reflect.Uint64:
			v.SetUint(7)
		default:
			panic(fmt.Sprint("no value for ", v.Type()))
		}
	}
}

// Facts go to other hosts as JSON, questions and reports too: nothing is lost on the way.
func TestJSON(t *testing.T) {
	for _, v := range []any{new(Facts), new(Question), new(End), new(Report)} {
		if _, ok := v.(*Report); ok {
			*v.(*Report) = Report{Findings: []Finding{{Code: "a", Follows: []Finding{{Code: "b", Fix: []string{"x"}}}}}, Untold: []Untold{{"c", "h", "w"}}}
		} else {
			filled(reflect.ValueOf(v).Elem())
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		back := reflect.New(reflect.TypeOf(v).Elem())
		if err := json.Unmarshal(text, back.Interface()); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(back.Interface(), v) {
			t.Errorf("%s came back as %+v", text, back.Elem())
		}
	}
}
