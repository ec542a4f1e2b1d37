package main

import (
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// httpServer answers on one listener. It ends in two steps, of which the second may last.
type httpServer struct {
	server      http.Server
	listener    net.Listener
	leaving     chan struct{} // closed when the listener is
	serving     sync.WaitGroup
	connections sync.WaitGroup
}

// serveHTTP begins to answer. faults takes what goes wrong with single connections; failed hears why the listener has failed, if it
// does.
func serveHTTP(l net.Listener, handler http.Handler, faults *log.Logger, failed func(error)) *httpServer {
	s := &httpServer{listener: l, leaving: make(chan struct{})}
	s.server = http.Server{
		Handler:        handler,
		MaxHeaderBytes: adminHeader,
		ReadTimeout:    adminReadTime,
		WriteTimeout:   adminWriteTime,
		IdleTimeout:    adminIdleTime,
		ErrorLog:       faults,
		ConnState:      s.count,
	}
	s.serving.Go(func() {
		err := s.server.Serve(l)
		select {
		case <-s.leaving:
		default:
			failed(err)
		}
	})
	return s
}

func (s *httpServer) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.connections.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.connections.Done()
	}
}

// leave closes the listener.
func (s *httpServer) leave() {
	close(s.leaving)
	s.listener.Close()
	s.serving.Wait()
}

// end, after leave, answers those who were let in, and hangs up; after adminGrace at the latest. http.Server.Shutdown would hang up at
// once on who has asked and was not heard yet, who could not know then whether he was.
func (s *httpServer) end() {
	s.server.SetKeepAlivesEnabled(false)
	answered := make(chan struct{})
	go func() { s.connections.Wait(); close(answered) }()
	select {
	case <-answered:
	case <-time.After(adminGrace):
	}
	s.server.Close()
}
