"""What is run: programs, environments and processes. Docker, GitPython and schedulers live only here."""
