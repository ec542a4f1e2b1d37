package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"jackdaw/configs"
)

// socketFlag adds --socket, where the running daemon is asked.
func socketFlag(cmd *cobra.Command, socket *string) {
	cmd.Flags().StringVar(socket, "socket", configs.AdminSocket,
		"ask the daemon at this `path`, which is [admin] socket in its configuration")
}

// errNoDaemon says that nobody can be asked.
var errNoDaemon = errors.New("no daemon answers")

// refusal is why a daemon has not done what it was to do.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// tell puts a question to the daemon at socket, which is the method and path of an endpoint, and fills in what it says. A *refusal
// is why it has not done what it was to do. The whole answer is read before anything is done with it: the daemon does not wait for
// the pager of whoever asks.
func tell(ctx context.Context, socket, question string, details url.Values, answer any) error {
	method, path, _ := strings.Cut(question, " ")
	ctx, cancel := context.WithTimeout(ctx, adminWriteTime) // after which the daemon, too, has given up
	defer cancel()
	text, err := callDaemon(ctx, socket, method, url.URL{Path: path, RawQuery: details.Encode()})
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("reading the answer of the daemon at %s: %w", socket, err)
	}
	return nil
}

// askDaemonTo has the daemon at socket do something, and waits until that is done. A *refusal is why it was not.
func askDaemonTo(ctx context.Context, socket, order string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, orderLimit)
	defer cancel()
	return callDaemon(ctx, socket, http.MethodPost, url.URL{Path: order})
}

// callDaemon returns the whole answer to a question.
func callDaemon(ctx context.Context, socket, method string, where url.URL) ([]byte, error) {
	response, hangUp, err := openDaemon(ctx, socket, method, where)
	if err != nil {
		return nil, err
	}
	defer hangUp()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, fmt.Errorf("reading the answer of the daemon at %s: %w", socket, err)
	}
	return answer, nil
}

// askAgain is when a daemon is asked again that says that another process is taking over.
const askAgain = 50 * time.Millisecond

// openDaemon returns the beginning of an answer that is no refusal. hangUp must be called when it was read. Who asks while another
// process takes over is answered by that.
func openDaemon(ctx context.Context, socket, method string, where url.URL) (response *http.Response, hangUp func(), err error) {
	for {
		response, hangUp, err = openProcess(ctx, socket, method, where)
		if !errors.Is(err, errNotServing) {
			return response, hangUp, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

// openProcess is openDaemon for the process that has the socket at the moment. errNotServing means that it will be another one's.
func openProcess(ctx context.Context, socket, method string, where url.URL) (response *http.Response, hangUp func(), err error) {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	defer func() {
		if err != nil {
			transport.CloseIdleConnections()
		}
	}()
	where.Scheme, where.Host = "http", "jackdaw"
	request, err := http.NewRequestWithContext(ctx, method, where.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	response, err = transport.RoundTrip(request)
	if err != nil {
		return nil, nil, describeDial(socket, err)
	}
	if response.StatusCode == http.StatusOK {
		return response, func() { response.Body.Close(); transport.CloseIdleConnections() }, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	reason := strings.TrimSpace(string(text))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("reading the answer of the daemon at %s: %w", socket, err)
	case response.StatusCode == http.StatusNotFound:
		return nil, nil, fmt.Errorf("the daemon at %s does not know %s: it is of another version", socket, where.Path)
	case response.StatusCode == http.StatusMisdirectedRequest:
		return nil, nil, errNotServing
	case response.StatusCode == http.StatusConflict:
		return nil, nil, &refusal{reason}
	}
	return nil, nil, fmt.Errorf("the daemon at %s says: %s", socket, reason)
}

// describeDial says what to do about a daemon that cannot be asked.
func describeDial(socket string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w at %s; is it running, and is that its [admin] socket?", errNoDaemon, socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("asking the daemon at %s: permission denied; ask as root, or as its user or group", socket)
	}
	return fmt.Errorf("asking the daemon at %s: %w", socket, err)
}
