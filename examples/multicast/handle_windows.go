package main

import "syscall"

type handle = syscall.Handle
