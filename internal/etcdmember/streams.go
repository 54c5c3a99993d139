package etcdmember

import (
	"context"

	"google.golang.org/grpc"
)

// endableStreams returns an interceptor for the streams of clients, and a
// function that ends them all. Without it, closing the server waits seconds for
// watches and keep-alives, as they never end by themselves.
func endableStreams() (intercept grpc.StreamServerInterceptor, end context.CancelFunc) {
	all, end := context.WithCancel(context.Background())
	intercept = func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(all, cancel)()
		return handler(server, endableStream{ServerStream: stream, context: func() context.Context { return ctx }})
	}
	return intercept, end
}

type endableStream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s endableStream) Context() context.Context { return s.context() }
