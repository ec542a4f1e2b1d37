package directories

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// What a MUPDATE master may say at most. A string that is longer than a name can be is passed over and not kept: an access
// control list may have any length.
const (
	maxMupdateWord    = 64
	maxMupdateName    = 512
	maxMupdateString  = 1 << 20
	maxMupdateStrings = 16
)

var errMupdate = errors.New("the master does not talk MUPDATE")

// mupdateReader reads the responses of a MUPDATE master (RFC 3656 section 3). It takes memory for names alone.
type mupdateReader struct {
	r    *bufio.Reader
	kept []byte // the parts of the last response
}

// mupdateResponse is one of them. Its parts are valid until the next is read.
type mupdateResponse struct {
	tag, what []byte    // what is in upper case
	strings   [2][]byte // the first two; nil in the place of one that is too long to be a name
	count     int       // how many strings there were
}

// read reads `tag SP word *(SP string) CRLF`. io.EOF comes only between two responses.
func (m *mupdateReader) read() (mupdateResponse, error) {
	var r mupdateResponse
	if _, err := m.r.Peek(1); err != nil {
		return r, err
	}
	err := m.readParts(&r)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return r, err
}

func (m *mupdateReader) readParts(r *mupdateResponse) (err error) {
	m.kept = m.kept[:0]
	var end byte
	if r.tag, end, err = m.word(); err != nil {
		return err
	}
	if end != ' ' {
		return fmt.Errorf("%w: nothing follows %q", errMupdate, r.tag)
	}
	r.what, end, err = m.word()
	for ; err == nil && end == ' '; r.count++ {
		if r.count == maxMupdateStrings {
			return fmt.Errorf("%w: more than %d strings behind %s", errMupdate, maxMupdateStrings, r.what)
		}
		var s []byte
		if s, err = m.string(); err != nil {
			return err
		}
		if r.count < len(r.strings) {
			r.strings[r.count] = s
		}
		end, err = m.r.ReadByte()
	}
	if err != nil {
		return err
	}
	upper(r.what)
	return m.lineEnd(end)
}

// word reads an atom up to a blank or the end of the line (RFC 3656 section 2.1), and returns which it was.
func (m *mupdateReader) word() (word []byte, end byte, err error) {
	start := len(m.kept)
	for {
		c, err := m.r.ReadByte()
		if err != nil {
			return nil, 0, err
		}
		word = m.kept[start:]
		switch {
		case len(word) > 0 && (c == ' ' || c == '\r' || c == '\n'):
			return word, c, nil
		case c <= ' ' || c >= 0x7f || c == '"' || c == '{' || len(word) == maxMupdateWord:
			return nil, 0, fmt.Errorf("%w: %q behind %q", errMupdate, c, word)
		}
		m.kept = append(m.kept, c)
	}
}

// lineEnd takes CR LF, of which the first octet was read.
func (m *mupdateReader) lineEnd(c byte) (err error) {
	if c == '\r' {
		c, err = m.r.ReadByte()
	}
	if err == nil && c != '\n' {
		err = fmt.Errorf("%w: %q in the place of a line's end", errMupdate, c)
	}
	return err
}

// string reads a quoted string or a literal; nil stands for one that is too long to be a name (RFC 3656 section 2.2).
func (m *mupdateReader) string() ([]byte, error) {
	c, err := m.r.ReadByte()
	switch {
	case err != nil:
		return nil, err
	case c == '"':
		return m.quoted()
	case c == '{':
		return m.literal()
	}
	return nil, fmt.Errorf("%w: %q in the place of a string", errMupdate, c)
}

// quoted reads up to the closing quote. Nothing in it is escaped.
func (m *mupdateReader) quoted() ([]byte, error) {
	start := len(m.kept)
	for n := 0; n <= maxMupdateString; n++ {
		c, err := m.r.ReadByte()
		switch {
		case err != nil:
			return nil, err
		case c == '"' && n > maxMupdateName:
			return nil, nil
		case c == '"':
			return m.kept[start:], nil
		case c == 0 || c == '\r' || c == '\n':
			return nil, fmt.Errorf("%w: %q in a quoted string", errMupdate, c)
		case n < maxMupdateName:
			m.kept = append(m.kept, c)
		}
	}
	return nil, fmt.Errorf("%w: a string of more than %d octets", errMupdate, maxMupdateString)
}

// literal reads "n}" or "n+}", the end of the line and n octets. Masters write both forms.
func (m *mupdateReader) literal() ([]byte, error) {
	size, digits := 0, 0
	c, err := m.r.ReadByte()
	for ; err == nil && '0' <= c && c <= '9'; c, err = m.r.ReadByte() {
		digits++
		if size = size*10 + int(c-'0'); size > maxMupdateString || digits > 10 {
			return nil, fmt.Errorf("%w: a literal of more than %d octets", errMupdate, maxMupdateString)
		}
	}
	if err == nil && c == '+' {
		c, err = m.r.ReadByte()
	}
	if err == nil && (c != '}' || digits == 0) {
		err = fmt.Errorf("%w: a literal without a length", errMupdate)
	}
	if err == nil {
		c, err = m.r.ReadByte()
	}
	if err == nil {
		err = m.lineEnd(c)
	}
	if err != nil {
		return nil, err
	}
	if size > maxMupdateName {
		_, err = m.r.Discard(size)
		return nil, err
	}
	start := len(m.kept)
	m.kept = append(m.kept, make([]byte, size)...)
	_, err = io.ReadFull(m.r, m.kept[start:])
	return m.kept[start:], err
}

// upper makes letters upper-case in place.
func upper(word []byte) { copy(word, bytes.ToUpper(word)) }
