//! Example jobs for AWS, each a program beside this folder. The cluster tests submit them.
