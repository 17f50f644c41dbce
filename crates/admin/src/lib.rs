//! The daemons' admin API: its views, its server on a unix socket, and its client.
