//! What the build script made of `proto/`, nested as the packages are.
#![allow(missing_docs, clippy::all, unused_qualifications)] // generated code

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
pub mod quorate {
    pub mod v1 {
        tonic::include_proto!("quorate.v1");
    }
    pub mod internal {
        pub mod v1 {
            tonic::include_proto!("quorate.internal.v1");
        }
    }
}
