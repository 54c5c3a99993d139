//go:build linux

package traffic

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"
)

// End carries out orders.
type End struct {
	// Clock is what Answer.CPU is read from.
	Clock func() (time.Duration, error)
	// At is where it listens, whatever it is told, and it opens nothing, if At is valid: nobody can then direct traffic of this host at others.
	At netip.AddrPort

	listener *listener
	sender   *sender
}

// Serve carries out orders from in until that ends, one after the other, and answers to out.
func (e *End) Serve(in io.Reader, out io.Writer) error {
	defer e.close()
	orders, answers := json.NewDecoder(in), json.NewEncoder(out)
	for {
		var o Order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		a, err := e.do(o)
		if err != nil {
			a = Answer{Error: err.Error()}
		}
		if err := answers.Encode(a); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

func (e *End) do(o Order) (a Answer, err error) {
	switch o.Action {
	case Listen:
		if e.At.IsValid() {
			o.Addr = e.At
		}
		e.close()
		e.listener, err = listen(o)
		if err == nil {
			a.Addr = e.listener.addr
		}
	case Open:
		if e.At.IsValid() {
			return a, errors.New("this end only listens")
		}
		e.close()
		e.sender, err = open(o)
	case Run:
		if e.sender == nil {
			return a, errors.New("nothing is open")
		}
		a.Count, a.Took, err = e.sender.run(o.For)
	case Count:
		if e.listener == nil {
			return a, errors.New("nothing listens")
		}
		a.Count = e.listener.counted()
	case CPU:
		a.CPU, err = e.Clock()
	case Close:
		err = e.close()
	default:
		err = fmt.Errorf("action is %q, which this end does not know", o.Action)
	}
	return a, err
}

func (e *End) close() error {
	var errs []error
	if e.sender != nil {
		errs = append(errs, e.sender.close())
	}
	if e.listener != nil {
		errs = append(errs, e.listener.close())
	}
	e.listener, e.sender = nil, nil
	return errors.Join(errs...)
}
