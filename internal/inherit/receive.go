package inherit

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"jackdaw/configs"
)

// Will is what a process inherits that another one has started to take over.
type Will struct {
	From      int // the process that has started us
	Sockets   *Sockets
	Processes []Process // that still have sessions, From among them

	conn *net.UnixConn
	in   *json.Decoder
}

// sayLimit bounds how long the old process may take for its next word. It has died, or hangs, if it takes longer.
const sayLimit = time.Minute

// Receive returns what this process inherits, or nil if it was started by nobody who has something to give.
func Receive() (*Will, error) {
	text, ok := os.LookupEnv(variable)
	if !ok {
		return nil, nil
	}
	os.Unsetenv(variable)
	fd, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: no descriptor", variable, text)
	}
	conn, err := unixConn(fd)
	if err != nil {
		return nil, fmt.Errorf("%s=%d: %w", variable, fd, err)
	}
	w := &Will{conn: conn, in: json.NewDecoder(conn)}
	if err := w.read(); err != nil {
		return nil, errors.Join(err, w.Refuse(err))
	}
	return w, nil
}

func (w *Will) read() error {
	var text will
	if err := w.hear(&text); err != nil {
		return err
	}
	w.From = text.PID
	w.Sockets = &Sockets{serving: make(chan struct{}), open: make(map[configs.Address]*listener)}
	for _, s := range text.Sockets {
		syscall.CloseOnExec(s.Descriptor)
		g := &given{
			address:   configs.Address{Network: s.Network, Address: s.Address},
			activated: s.Activated,
			file:      os.NewFile(uintptr(s.Descriptor), s.Address),
		}
		if err := w.Sockets.give(g); err != nil {
			return fmt.Errorf("inheriting %s: %w", g.address, err)
		}
	}
	for _, d := range text.Doors {
		conn, err := unixConn(d.Descriptor)
		if err != nil {
			return fmt.Errorf("inheriting the door of process %d: %w", d.PID, err)
		}
		w.Processes = append(w.Processes, Process{d.PID, &Bell{conn}})
	}
	return nil
}

func (w *Will) hear(what any) error {
	_ = w.conn.SetReadDeadline(time.Now().Add(sayLimit))
	if err := w.in.Decode(what); err != nil {
		return fmt.Errorf("hearing what there is to inherit: %w", err)
	}
	return nil
}

// Accept says that everything is ready, and waits for what must not change any more.
func (w *Will) Accept(estate any) error {
	if err := json.NewEncoder(w.conn).Encode(answer{}); err != nil {
		return err
	}
	return w.hear(estate)
}

// Serve begins to accept connections, and says so.
func (w *Will) Serve() error {
	err := json.NewEncoder(w.conn).Encode(answer{})
	if err == nil {
		w.Sockets.serve()
	}
	return errors.Join(err, w.conn.Close())
}

// Refuse says why this process cannot begin. It must end then.
func (w *Will) Refuse(why error) error {
	return errors.Join(json.NewEncoder(w.conn).Encode(answer{why.Error()}), w.conn.Close())
}
