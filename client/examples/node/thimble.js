// A client of thimbled made from nothing but the proto. The address is what thimbled's --listen is.
'use strict';
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

// Where the .proto files are, when not in the source tree that this file is in.
const protos = process.env.THIMBLE_PROTO || path.join(__dirname, '../../../proto');

exports.connect = function (address = 'unix:/run/thimble/thimble.sock') {
  const definition = loader.loadSync('thimble/v1/thimble.proto', {
    includeDirs: [protos],
    keepCase: true,
    enums: String,
    longs: Number,
    defaults: true,
    oneofs: true,
  });
  const { Thimble } = grpc.loadPackageDefinition(definition).thimble.v1;
  // Nothing is encrypted: the socket's permissions, or loopback, are what keeps others out.
  return new Thimble(address, grpc.credentials.createInsecure());
};
