package relay

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// A tls.Conn keeps the largest record that it has read, and the largest message of its handshake, for as long as it lives.
// There is no call that drops them. tlsFields finds them by name, and does nothing where Go has changed what they are: then
// sessions take more memory, and work as before.
type tlsFields struct {
	known                 bool
	rawInput, input, hand uintptr // offsets
}

var fields = findFields()

func findFields() tlsFields {
	conn := reflect.TypeFor[tls.Conn]()
	offset := func(name string, kind reflect.Type) (uintptr, bool) {
		f, ok := conn.FieldByName(name)
		return f.Offset, ok && f.Type == kind
	}
	rawInput, ok1 := offset("rawInput", reflect.TypeFor[bytes.Buffer]())
	input, ok2 := offset("input", reflect.TypeFor[bytes.Reader]())
	hand, ok3 := offset("hand", reflect.TypeFor[bytes.Buffer]())
	return tlsFields{ok1 && ok2 && ok3, rawInput, input, hand}
}

// The fields of a connection that nobody else uses at the moment.
func (f tlsFields) raw(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), f.rawInput))
}
func (f tlsFields) plain(c *tls.Conn) *bytes.Reader {
	return (*bytes.Reader)(unsafe.Add(unsafe.Pointer(c), f.input))
}
func (f tlsFields) messages(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), f.hand))
}

// lend lets the connection read into memory that all connections of a loop share, and takes with it what has arrived of a
// record, from memory that nobody needs any more. As much is read with one call as there is room.
func (f tlsFields) lend(c *tls.Conn, shared []byte) (former []byte) {
	if !f.known {
		return nil
	}
	raw := f.raw(c)
	former = raw.Bytes()
	*raw = *bytes.NewBuffer(append(shared[:0], former...))
	return former
}

// settle takes the shared memory back. What has arrived of a record stays with the connection, in a copy of its own.
func (f tlsFields) settle(c *tls.Conn, copied func([]byte) []byte) {
	if !f.known {
		return
	}
	raw := f.raw(c)
	if rest := raw.Bytes(); len(rest) > 0 {
		*raw = *bytes.NewBuffer(copied(rest))
	} else {
		*raw = bytes.Buffer{}
	}
	if f.plain(c).Len() == 0 {
		*f.plain(c) = bytes.Reader{}
	}
	if f.messages(c).Len() == 0 {
		*f.messages(c) = bytes.Buffer{}
	}
}
