"""What `broker demo` needs beside the stack: a batch file, and its configuration."""
