"""The service over HTTP: requests in JSON, samples as pictures or arrays, on a `Service` of `workers`."""
