// interop-go: grpc-go's own interop cases and its test server, for go_test.py.
//
//	interop-go server                  listens on a free loopback port and prints it
//	interop-go client ADDRESS TOKEN    runs every case; "ok NAME" for each; ends with 1 at the first
//	                                   that fails, behind what failed
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // what Python's cases send compressed is read.
	"google.golang.org/grpc/interop"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// How long all cases may take: a call that hangs is a failure.
const patience = 60 * time.Second

const concurrentCalls = 50

type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

func concurrentLargeUnary(ctx context.Context, tc pb.TestServiceClient, args ...grpc.CallOption) {
	var all sync.WaitGroup
	for range concurrentCalls {
		all.Add(1)
		go func() {
			defer all.Done()
			interop.DoLargeUnaryCall(ctx, tc, args...)
		}()
	}
	all.Wait()
}

var cases = []struct {
	name string
	run  func(context.Context, pb.TestServiceClient, ...grpc.CallOption)
}{
	{"empty_unary", interop.DoEmptyUnaryCall},
	{"large_unary", interop.DoLargeUnaryCall},
	{"client_streaming", interop.DoClientStreaming},
	{"server_streaming", interop.DoServerStreaming},
	{"ping_pong", interop.DoPingPong},
	{"empty_stream", interop.DoEmptyStream},
	{"custom_metadata", interop.DoCustomMetadata},
	{"status_code_and_message", interop.DoStatusCodeAndMessage},
	{"special_status_message", interop.DoSpecialStatusMessage},
	{"cancel_after_begin", interop.DoCancelAfterBegin},
	{"cancel_after_first_response", interop.DoCancelAfterFirstResponse},
	{"timeout_on_sleeping_server", interop.DoTimeoutOnSleepingServer},
	{"concurrent_large_unary", concurrentLargeUnary},
}

func client(address, token string) error {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(token)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, c := range cases {
		fmt.Println("begins", c.name)
		c.run(ctx, pb.NewTestServiceClient(conn)) // ends the process when it fails.
		fmt.Println("ok", c.name)
	}
	fmt.Println("begins", "unimplemented_method")
	interop.DoUnimplementedMethod(ctx, conn)
	fmt.Println("ok", "unimplemented_method")
	fmt.Println("begins", "unimplemented_service")
	interop.DoUnimplementedService(ctx, pb.NewUnimplementedServiceClient(conn))
	fmt.Println("ok", "unimplemented_service")
	return nil
}

func server() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := grpc.NewServer()
	pb.RegisterTestServiceServer(s, interop.NewTestServer())
	fmt.Println("port", listener.Addr().(*net.TCPAddr).Port)
	return s.Serve(listener)
}

func main() {
	err := fmt.Errorf("usage: interop-go server | client ADDRESS TOKEN")
	switch {
	case len(os.Args) == 2 && os.Args[1] == "server":
		err = server()
	case len(os.Args) == 4 && os.Args[1] == "client":
		err = client(os.Args[2], os.Args[3])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
