//! A client of one remote cluster: its configuration, connection, and mirrored tables.
