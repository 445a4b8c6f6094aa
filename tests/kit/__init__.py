"""What several test modules share: real roots, engines, daemons, servers and file systems, made and removed again."""
