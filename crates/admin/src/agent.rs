//! Views of the agent.
