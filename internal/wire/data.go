package wire

import "io"

// Data reads a message behind DATA (RFC 5321 section 4.1.1.4), as it came: with its dots doubled, and with the line that ends
// it. That line is CR LF . CR LF and nothing else.
type Data struct {
	c     *Conn
	place dataPlace
	bare  bool
}

// dataPlace is what the last octets were.
type dataPlace int

const (
	inLine    dataPlace = iota
	lineStart           // CR LF
	afterCR
	afterDot // at the start of a line
	afterDotCR
	dataEnd
)

// Data begins to read a message. The end of the command's line is the start of its first.
func (c *Conn) Data() *Data { return &Data{c: c, place: lineStart} }

// Next returns the next octets, which are valid until the next read. Behind the end it is io.EOF; an end of input before
// that is io.ErrUnexpectedEOF.
func (d *Data) Next() ([]byte, error) {
	if d.place == dataEnd {
		return nil, io.EOF
	}
	if _, err := d.c.r.Peek(1); err != nil {
		return nil, noEOF(err)
	}
	p, _ := d.c.r.Peek(d.c.r.Buffered())
	n := 0
	for n < len(p) && d.place != dataEnd {
		d.step(p[n])
		n++
	}
	_, _ = d.c.r.Discard(n)
	return p[:n], nil
}

// step goes one octet on.
func (d *Data) step(c byte) {
	if cr := d.place == afterCR || d.place == afterDotCR; cr != (c == '\n') || c == 0 {
		d.bare = true
	}
	switch {
	case c == '\n' && d.place == afterDotCR:
		d.place = dataEnd
	case c == '\n' && d.place == afterCR:
		d.place = lineStart
	case c == '\r' && d.place == afterDot:
		d.place = afterDotCR
	case c == '\r':
		d.place = afterCR
	case c == '.' && d.place == lineStart:
		d.place = afterDot
	default:
		d.place = inLine
	}
}

// Bare reports whether a CR without LF, a LF without CR or a NUL was among what Next has returned. There are servers that
// take such for the end of a line, and what comes behind it for commands (CVE-2023-51764): the message must go to none.
func (d *Data) Bare() bool { return d.bare }

// ReadOctets reads some octets of a number that the peer has announced: at least one and at most len(p).
func (c *Conn) ReadOctets(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		return n, nil
	}
	return 0, noEOF(err)
}

// HasLine reports whether a whole line was read ahead: the next one comes without waiting for the peer.
func (c *Conn) HasLine() bool {
	p, _ := c.r.Peek(c.r.Buffered())
	for _, octet := range p {
		if octet == '\n' {
			return true
		}
	}
	return false
}

// Write sends octets at once, behind what was kept back.
func (c *Conn) Write(p []byte) (int, error) {
	if err := c.Flush(); err != nil {
		return 0, err
	}
	n, err := c.conn.Write(p)
	if err != nil {
		c.err = bare(err)
	}
	return n, c.err
}
