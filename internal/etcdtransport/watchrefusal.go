package etcdtransport

import (
	"context"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// endRefused has a stream end with the reason when etcd refuses to begin a watch on it, for a token that it has forgotten or for want of rights.
// The etcd client would end the refused watch only. If several are refused one after the other, it may then wait for ever for what it waits
// for itself: the watches never end, and nothing else that is asked of the stream returns. It also drops the code of the reason.
func endRefused(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, options...)
	if err != nil || method != pb.Watch_Watch_FullMethodName {
		return stream, err
	}
	return refusableStream{stream}, nil
}

// refusableStream is a stream of watches. After it has returned an error, the etcd client ends it by its context.
type refusableStream struct{ grpc.ClientStream }

func (s refusableStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		return err
	}
	if r, ok := m.(*pb.WatchResponse); ok && r.Created && (r.Canceled || r.WatchId == clientv3.InvalidWatchID) {
		return refusedWatch(r.CancelReason)
	}
	return nil
}

// refusedWatch is the error of a watch that was refused, with the code that package rpctypes knows it by. The reason is the text of a status.
func refusedWatch(reason string) error {
	if _, desc, ok := strings.Cut(reason, " desc = "); ok {
		reason = desc
	}
	// The code itself only needs to be one at which the etcd client does not try again on its own.
	return status.Error(codes.FailedPrecondition, reason)
}
