package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	flash "github.com/flash-sandbox/flash-sandbox"
	"github.com/flash-sandbox/flash-sandbox/client"
)

func Example() {
	c, err := client.New("localhost:8080", client.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	ctx := context.Background()
	sb, err := c.Create(ctx, flash.CreateOptions{Image: "alpine:latest", Command: []string{"sleep", "600"}, MemoryMB: 128})
	if errors.Is(err, flash.Unavailable) {
		log.Fatal("is fsbd running? ", err)
	} else if err != nil {
		log.Fatal(err)
	}
	res, err := c.Exec(ctx, sb.ID, flash.ExecOptions{Command: []string{"uname", "-r"}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("exit code %d: %s", res.Ending.ExitCode, res.Stdout)
	if err := c.Delete(ctx, sb.ID, flash.DeleteOptions{}); err != nil {
		log.Fatal(err)
	}
}
