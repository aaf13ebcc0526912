# u2pl on an NVIDIA GPU: docker build -f docker/cuda.Dockerfile -t u2pl . && docker run --gpus all --shm-size=8g -v "$PWD:/data" u2pl demo
# gcc is what torch.compile needs.
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir .
WORKDIR /data
ENTRYPOINT ["u2pl"]
CMD ["--help"]
