"""What `broker demo` needs beside the stack: a batch file, and two upstreams that are busy and flaky on purpose."""
