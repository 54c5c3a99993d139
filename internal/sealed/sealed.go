// Package sealed puts a checksum into files of JSON, so that one that was cut off or changed is told from a whole one.
package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
)

// sealStart begins a sealed file: a JSON object whose first member is the SHA-256 of all that comes after it. Readers
// that do not know the member pass over it, and the sum holds for members that this version does not know.
const sealStart = `{"sha256":"`

// What Check finds wrong.
var (
	ErrNone   = errors.New("it has no checksum")
	ErrBroken = errors.New("its checksum does not match")
)

// Seal puts its checksum into an encoded JSON object.
func Seal(object []byte) []byte {
	rest := []byte(`"`)
	if len(object) > len(`{}`) {
		rest = append(rest, ',')
	}
	rest = append(rest, object[1:]...)
	return slices.Concat([]byte(sealStart), sumOf(rest), rest)
}

// Check returns ErrNone for a file without a checksum and ErrBroken if the file is not what was sealed.
func Check(file []byte) error {
	after, ok := bytes.CutPrefix(file, []byte(sealStart))
	if !ok {
		return ErrNone
	}
	size := hex.EncodedLen(sha256.Size)
	if len(after) < size || !bytes.Equal(after[:size], sumOf(after[size:])) {
		return ErrBroken
	}
	return nil
}

func sumOf(data []byte) []byte {
	sum := sha256.Sum256(data)
	return hex.AppendEncode(nil, sum[:])
}
