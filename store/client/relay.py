"""Inside a container: a port of the loopback that leads to a Unix socket, for clients that know only http addresses.

    python -I relay.py SOCKET -- COMMAND...

Runs COMMAND in its own place (same process id) with MLFLOW_TRACKING_URI set; the relay itself is a child that ends with it.
Standard library only, and run by its path: nothing of mltrack is imported.
"""

import os
import select
import socket
import sys
import threading

LOOK_SECONDS = 2.0
PIECE = 1 << 16


def main() -> None:
    """Listen, fork, become the command."""
    path, command = sys.argv[1], sys.argv[3:]
    listener = socket.create_server(("127.0.0.1", 0))
    os.environ["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{listener.getsockname()[1]}"
    parent = os.getpid()
    if os.fork() == 0:
        relay(listener, path, parent)
        os._exit(0)
    listener.close()
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        sys.stderr.write(f"{command[0]}: command not found\n")
        sys.stderr.flush()
        os._exit(127)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: cannot be run ({error.strerror})\n")
        sys.stderr.flush()
        os._exit(126)


def relay(listener: socket.socket, path: str, parent: int) -> None:
    """Serve connections until the parent is gone."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)  # or the command's output would never end
    listener.settimeout(LOOK_SECONDS)
    while os.getppid() == parent:
        try:
            client, _ = listener.accept()
        except TimeoutError:
            continue
        except OSError:
            return
        threading.Thread(target=_carry, args=(client, path), daemon=True).start()


def _carry(client: socket.socket, path: str) -> None:
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(path)
        client.settimeout(None)
        other = {client: server, server: client}
        while True:
            for source in select.select(list(other), [], [])[0]:
                piece = source.recv(PIECE)
                if not piece:
                    return
                other[source].sendall(piece)
    except OSError:
        return  # one side is gone, and so is the other in a moment
    finally:
        client.close()
        server.close()


if __name__ == "__main__":
    main()
