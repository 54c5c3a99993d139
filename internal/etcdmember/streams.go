package etcdmember

import (
	"context"

	"google.golang.org/grpc"
)

// streams lets a member end the watches and keep-alives of its clients. Without
// it, closing the server waits seconds for them, as they never end by themselves.
type streams struct {
	ctx context.Context
	end context.CancelFunc
}

func newStreams() streams {
	ctx, cancel := context.WithCancel(context.Background())
	return streams{ctx: ctx, end: cancel}
}

func (s streams) intercept(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return handler(server, endableStream{ServerStream: stream, ctx: ctx})
}

type endableStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s endableStream) Context() context.Context { return s.ctx }
